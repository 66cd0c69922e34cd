"""The networks of a release: found among its files and checked against our networks, before any tensor is read."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from videodit.config.json_file import parse_object, read_document
from videodit.config.schema import json_spelling, parse_as, shorten
from videodit.interop import mapping, wan, wan_vae
from videodit.interop.kinds import ExpectedFields, PartName, ReleaseKind, Requirement
from videodit.interop.reference_layouts import LAYOUT_OF_PART, REFERENCE_LAYOUTS, NetworkConfig
from videodit.interop.safetensors import Tensor, Weights
from videodit.interop.text import TIED
from videodit.provenance import JSON


@dataclass(frozen=True)
class Part:
    """A network of a release whose every tensor maps to a parameter of our network.

    Attributes:
        cfg: the configuration of our network.
        make: creates our network with random parameters.
        rules: how tensors map to parameters.
        weights: the tensors by name.
        buffers: the variables of our network that are not parameters.
        files: the files that hold the tensors.
    """

    name: PartName
    cfg: NetworkConfig
    make: Callable[[nnx.Rngs], nnx.Module]
    rules: list[mapping.Rule]
    weights: Mapping[str, Tensor]
    buffers: Mapping[str, Float[np.ndarray, "C"]]
    files: tuple[Path, ...]

    def load(self, target: Mapping[Any, Any]) -> dict[Any, Any]:
        """Read the parameters with the types and shardings of `target`; see `mapping.load`."""
        return mapping.load(self.rules, target, self.weights, self.description)

    @property
    def description(self) -> str:
        """The network in words, for messages."""
        return f"the {self.name.replace('_', ' ')} in {self.files[0].parent}"


def find_parts(
    kind: ReleaseKind, source: Path, part_paths: Mapping[PartName, Path] | None = None
) -> dict[PartName, Part]:
    """Find the networks of a release and check them; reads headers and configurations only.

    Args:
        source: a folder with one sub-folder per network, as diffusers writes it; or the folder, file or index of the
            weights of the kind's main network.
        part_paths: paths of networks that are not in `source`.

    Raises:
        ValueError: if the main network or a file is missing, a file is truncated or of another format, or names,
            shapes or a configuration are not those of the kind.
    """
    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    for name in part_paths or {}:
        if name not in kind.parts:
            raise ValueError(f"the kind has no {name.replace('_', ' ')}: it has {', '.join(kind.parts)}")
    folders = {name: source / name for name in kind.parts if (source / name).is_dir()} or {kind.main: source}
    folders |= part_paths or {}
    if kind.main not in folders:
        raise ValueError(f"{source} has no folder {kind.main}, only {', '.join(folders)}")
    parts = {name: _open_part(name, folders[name], kind.parts[name]) for name in kind.parts if name in folders}
    if "vae" in parts and (dit := parts.get("transformer")) is not None:
        generated, encoded = dit.cfg.out_channels or dit.cfg.in_channels, parts["vae"].cfg.latent_channels
        if generated != encoded:
            raise ValueError(
                f"{dit.description} generates latents of {generated} channels, {parts['vae'].description} has {encoded}"
            )
    return parts


def _open_part(name: PartName, path: Path, expected: ExpectedFields) -> Part:
    opened = Weights(path)
    folder = opened.files[0].parent
    fields = _read_fields(name, folder, expected)
    layout = REFERENCE_LAYOUTS[LAYOUT_OF_PART[name]]
    with json_spelling():
        _check_fields(name, folder, fields, expected)
    try:
        with json_spelling():
            cfg, buffers = layout.module.parse_config(fields), {}
            if name == "vae":
                mean_C, std_C = wan_vae.parse_latent_stats(fields)
                buffers = {"latent_mean": mean_C, "latent_std": std_C}
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    weights = _CLEAN[name](dict(opened))
    rules = layout.module.build_rules(cfg)
    part = Part(name, cfg, lambda rngs: layout.make(cfg, rngs=rngs), rules, weights, buffers, opened.files)
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: part.make(nnx.Rngs(0))), nnx.Param))
    mapping.check(part.rules, mapping.flatten(shapes), part.weights, part.description)
    return part


def _check_fields(name: PartName, folder: Path, fields: Mapping[str, JSON], expected: ExpectedFields) -> None:
    """Raise ValueError, naming the field, unless a `config.json` has what a kind expects."""
    for key, value in expected.items():
        if not _satisfies(fields, key, value):
            words = value.value if isinstance(value, Requirement) else shorten(value)
            raise ValueError(
                f"{key} is {shorten(fields.get(key))} in the configuration of {folder}, but the kind's "
                f"{name.replace('_', ' ')} has {words}"
            )


def _satisfies(fields: Mapping[str, JSON], key: str, expected: JSON | Requirement) -> bool:
    """Return whether a field of a `config.json` is what a kind expects; an absent field equals an empty one."""
    value, out_channels = fields.get(key), fields.get("out_channels") or fields.get("in_channels")
    match expected:
        case Requirement.PRESENT:
            return bool(value)
        case Requirement.EQUALS_OUT_CHANNELS:
            return value == out_channels
        case Requirement.EXCEEDS_OUT_CHANNELS:
            return isinstance(value, int) and isinstance(out_channels, int) and value > out_channels
    return value == expected or not (expected or value)


def _read_fields(name: PartName, folder: Path, expected: ExpectedFields) -> dict[str, JSON]:
    """Read `config.json` as diffusers or transformers writes it.

    A transformer's may also have the original release's fields, or be absent if the kind fixes all sizes.
    """
    path = folder / "config.json"
    if not path.is_file():
        if name.startswith("transformer") and "num_layers" in expected:
            return wan.COMMON | expected
        raise ValueError(f"{folder} has no config.json, which describes the network of the weights")

    def parse(data: bytes) -> dict[str, JSON]:
        fields = parse_object(data)
        if name.startswith("transformer") and "dim" in fields and "num_attention_heads" not in fields:
            attends_image = "image_dim" not in expected or expected["image_dim"] is not None
            return wan.convert_original_fields(fields, attends_image=attends_image)
        if name == "image_encoder":
            return parse_as(dict, fields.get("vision_config", fields), "vision_config")
        return fields

    return read_document(path, parse)


def _clean_transformer(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # Released with some image-to-video transformers; no release's forward pass uses it.
    unused = re.compile(r"\.attn2\.norm_added_q\.weight$")
    renamed = {wan.rename_original(name): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in renamed.items() if not unused.search(name)}


def _clean_text_encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return drop_tied(weights, TIED)


def _clean_image_encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {re.sub(r"^vision_model\.", "", name): tensor for name, tensor in weights.items()}
    # Not weights, but the integers from 0 up.
    return {name: tensor for name, tensor in renamed.items() if name != "embeddings.position_ids"}


_CLEAN: dict[PartName, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "transformer": _clean_transformer,
    "transformer_2": _clean_transformer,
    "vae": lambda weights: weights,
    "text_encoder": _clean_text_encoder,
    "image_encoder": _clean_image_encoder,
}


def drop_tied(weights: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """Drop tensors that repeat others.

    Args:
        tied: for the name of each repeated tensor, the name of the tensor that it repeats.

    Raises:
        ValueError: if the two differ.
    """
    distinct = dict(weights)
    for copy, name in tied.items():
        if copy not in distinct or name not in distinct:
            continue
        a, b = distinct[copy], distinct[name]
        if a.shape != b.shape or not np.array_equal(a.read(), b.read()):
            raise ValueError(f"{copy} and {name} should be one tensor, and differ")
        del distinct[copy]
    return distinct
