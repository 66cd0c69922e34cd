"""The networks of a release: found among its files, checked, and ready to be read into ours."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from videodit.interop import clip, mapping, text, wan, wan_vae
from videodit.interop.kinds import AS_MANY, MORE, Kind, PartName
from videodit.interop.safetensors import Tensor, Weights
from videodit.models.dit import DiT
from videodit.models.text import TextEncoder
from videodit.models.vae import VAE
from videodit.models.vision import VisionEncoder


@dataclass(frozen=True)
class Part:
    """A network whose every tensor is known to have its place in ours.

    Attributes:
        cfg: ours, a `DiTConfig`, `VAEConfig`, `TextConfig` or `VisionConfig`.
        make: a fresh model of ours.
        rules, weights: how it is made of which tensors.
        buffers: its variables that are no parameters.
        files: those that hold the tensors.
    """

    name: PartName
    cfg: Any
    make: Callable[[nnx.Rngs], nnx.Module]
    rules: list[mapping.Rule]
    weights: Mapping[str, Tensor]
    buffers: Mapping[str, np.ndarray]
    files: tuple[Path, ...]

    def load(self, target: Mapping[Any, Any]) -> dict[Any, Any]:
        """The parameters, where and in the type that the shapes of `target` say (`mapping.load`)."""
        return mapping.load(self.rules, target, self.weights, self.what)

    @property
    def what(self) -> str:
        """The network in words."""
        return f"the {self.name.replace('_', ' ')} in {self.files[0].parent}"


def find(kind: Kind, source: Path, places: Mapping[PartName, Path] | None = None) -> dict[PartName, Part]:
    """The networks of a release that are there.

    Args:
        source: a folder with a sub-folder a network, as diffusers has them; or a folder, a file or an index of the
            weights of one, that after which the kind is named.
        places: where networks are that lie elsewhere.

    Raises:
        ValueError: when there is none; a file is missing, cut off or of another type; or names, shapes or a
            configuration are not those of the kind. Nothing but headers and configurations has been read then.
    """
    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    for name in places or {}:
        if name not in kind.parts:
            raise ValueError(f"the kind has no {name.replace('_', ' ')}: it has {', '.join(kind.parts)}")
    folders = {name: source / name for name in kind.parts if (source / name).is_dir()} or {kind.main: source}
    folders |= places or {}
    if kind.main not in folders:
        raise ValueError(f"{source} has no folder {kind.main}, only {', '.join(folders)}")
    parts = {name: _part(name, folders[name], kind.parts[name]) for name in kind.parts if name in folders}
    if "vae" in parts and (dit := parts.get("transformer")) is not None:
        made, coded = dit.cfg.out_channels or dit.cfg.in_channels, parts["vae"].cfg.latent_channels
        if made != coded:
            raise ValueError(f"{dit.what} makes latents of {made} channels, {parts['vae'].what} codes {coded}")
    return parts


def _part(name: PartName, place: Path, wanted: Mapping[str, Any]) -> Part:
    opened = Weights(place)
    facts = _facts(name, opened.files[0].parent, wanted)
    for key, value in wanted.items():
        if not _as_wanted(facts, key, value):
            words = {..., AS_MANY, MORE}
            raise ValueError(
                f"{key} is {facts.get(key)!r} in the configuration of {opened.files[0].parent}, but the kind's "
                f"{name.replace('_', ' ')} has {'one' if value is ... else value if value in words else repr(value)}"
            )
    layout = LAYOUTS[_OF_PART[name]]
    try:
        cfg, buffers = layout.module.config(facts), {}
        if name == "vae":
            mean, std = wan_vae.statistics(facts)
            buffers = {"latent_mean": mean, "latent_std": std}
    except KeyError as error:
        raise ValueError(f"the config.json of {opened.files[0].parent} lacks {error}") from error
    weights = _TIDY[name](dict(opened))
    rules = layout.module.rules(cfg)
    part = Part(name, cfg, lambda rngs: layout.make(cfg, rngs=rngs), rules, weights, buffers, opened.files)
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: part.make(nnx.Rngs(0))), nnx.Param))
    mapping.check(part.rules, mapping.flat(shapes), part.weights, part.what)
    return part


def _as_wanted(facts: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether a configuration says of a key what a kind does."""
    found, out = facts.get(key), facts.get("out_channels") or facts.get("in_channels")
    if value is ...:
        return bool(found)
    if value == AS_MANY:
        return found == out
    if value == MORE:
        return isinstance(found, int) and found > out
    return found == value or not (value or found)


def _facts(name: PartName, folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says; of a transformer also as the original release says it, or without it from the kind."""
    path = folder / "config.json"
    if not path.is_file():
        if name.startswith("transformer") and "num_layers" in wanted:
            return wan.COMMON | wanted
        raise ValueError(f"{folder} has no config.json, which says what the weights are of")
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if name.startswith("transformer") and "dim" in facts and "num_attention_heads" not in facts:
        return wan.from_original(facts, sees=wanted.get("image_dim", ...) is not None)
    return facts.get("vision_config", facts) if name == "image_encoder" else facts


def _transformer(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # Released with some transformers that see images; no release's forward pass has it.
    unused = re.compile(r"\.attn2\.norm_added_q\.weight$")
    named = {wan.renamed(name): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in named.items() if not unused.search(name)}


def _text(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return without_ties(weights, text.TIED)


def _image(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {re.sub(r"^vision_model\.", "", name): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in kept.items() if name != "embeddings.position_ids"}  # no weights: 0, 1, ...


@dataclass(frozen=True)
class Layout:
    """A network of ours and how diffusers or transformers lay it out: modules with `config`, `facts` and `rules`."""

    module: Any
    make: Callable[..., nnx.Module]
    stem: str  # of the files' names

    def facts(self, cfg: Any, *statistics: np.ndarray) -> dict[str, Any]:
        """The `config.json` of an exported network.

        Raises:
            ValueError: when it has options that the layout has no words for, naming them.
        """
        facts = self.module.facts(cfg, *statistics)
        again = self.module.config(facts)
        other = [
            f"{field.name} is {getattr(cfg, field.name)!r}, there it is {getattr(again, field.name)!r}"
            for field in dataclasses.fields(cfg)
            if field.name not in OURS and getattr(cfg, field.name) != getattr(again, field.name)
        ]
        if other:
            raise ValueError(f"the layout has no words for what this network is: {'; '.join(other)}")
        return facts


OURS = ("remat", "dtype", "logvar_range", "eps", "out_channels", "decoder_channels", "fps_reference")
"""Options that change neither names nor shapes, or are said in another way."""

LAYOUTS: dict[str, Layout] = {
    "dit": Layout(wan, DiT, "diffusion_pytorch_model"),
    "vae": Layout(wan_vae, VAE, "diffusion_pytorch_model"),
    "text": Layout(text, TextEncoder, "model"),
    "vision": Layout(clip, VisionEncoder, "model"),
}
_OF_PART: dict[PartName, str] = {
    "transformer": "dit",
    "transformer_2": "dit",
    "vae": "vae",
    "text_encoder": "text",
    "image_encoder": "vision",
}
_TIDY: dict[PartName, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "transformer": _transformer,
    "transformer_2": _transformer,
    "vae": lambda weights: weights,
    "text_encoder": _text,
    "image_encoder": _image,
}


def without_ties(weights: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors without those that are others again; `tied` has the names of such, and of what they are.

    Raises:
        ValueError: when two that should be one differ.
    """
    kept = dict(weights)
    for copy, name in tied.items():
        if copy not in kept or name not in kept:
            continue
        a, b = kept[copy], kept[name]
        if a.shape != b.shape or not np.array_equal(a.read(), b.read()):
            raise ValueError(f"{copy} and {name} should be one tensor, and differ")
        del kept[copy]
    return kept
