"""Import a release: its networks, read from safetensors into a run's directory."""

import dataclasses
import difflib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import save_params
from videodit.checkpoint.restore import widest_mesh
from videodit.checkpoint.workdir import describe
from videodit.config.data import DataConfig
from videodit.config.io import WorkdirConfig
from videodit.config.json_file import parse_object, read_document, read_json
from videodit.config.run import DiTRun, ImportedTextEncoder, ImportedVisionEncoder, VAERun
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.interop import schedulers
from videodit.interop.directories import TRANSFORMERS, check_new, create_directory
from videodit.interop.kinds import KINDS, PartName, ReleaseKind
from videodit.interop.parts import Part, find_parts
from videodit.interop.safetensors import sha256
from videodit.models.text import TextConfig
from videodit.nn.state import abstract_arrays, abstract_module
from videodit.ranges import Share, check_ranges

Dtype = Literal["float32", "bfloat16"]

FOLDERS: dict[PartName, str] = {
    "vae": "vae",
    "text_encoder": "text",
    "image_encoder": "image",
    "transformer_2": "expert",
}
"""Folders of the run's directory for the networks that accompany its main one."""
TOKENIZER_FOLDERS = ("tokenizer", "google/umt5-xxl", ".", "../tokenizer")
"""Folders of a release that may have its sentencepiece model."""
UMT5_XXL = TextConfig(vocab_size=256384, width=4096, depth=24, num_heads=64, head_dim=64, mlp_width=10240)


@dataclass(frozen=True)
class Release:
    """A release as it was downloaded.

    Attributes:
        kind: a key of `KINDS`.
        source: its folder, or a file of weights.
        part_paths: paths of the networks that are not in that folder.
        tokenizer: the sentencepiece model, if not in that folder.
    """

    kind: str
    source: Path
    part_paths: Mapping[PartName, Path] = field(default_factory=dict)
    tokenizer: Path | None = None


def import_release(
    release: Release, out: Path, *, dtype: Dtype = "float32", message: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Import a release into a new directory; on failure nothing is left at `out`.

    Args:
        dtype: the type that weights are stored in.
        message: called with a line for every network.

    Returns:
        The parts that are missing for sampling.

    Raises:
        ValueError: for an unknown kind, if the directory exists, and as `find_parts`.
    """
    if release.kind not in KINDS:
        near = difflib.get_close_matches(release.kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(KINDS)}"
        raise ValueError(f"unknown kind '{release.kind}': {hint}")
    kind = KINDS[release.kind]
    check_new(out)
    parts = find_parts(kind, release.source, release.part_paths)
    tokenizer = find_tokenizer(release)
    with create_directory(out) as folder:
        if tokenizer is not None and "text_encoder" in kind.parts:
            shutil.copy(tokenizer, folder / "tokenizer.model")
        for name, part in parts.items():
            message(f"{part.description}: {len(part.weights)} tensors")
            _write_part(release, kind, part, parts, folder if name == kind.main else folder / FOLDERS[name], dtype)
    if kind.main != "transformer":
        return []
    missing = [name.replace("_", " ") for name in kind.parts if name not in parts]
    if "text_encoder" in parts and tokenizer is None:
        missing.append("tokenizer (spiece.model, pass it with --tokenizer)")
    return missing


def find_tokenizer(release: Release) -> Path | None:
    """Find the sentencepiece model of a release; ValueError if `release.tokenizer` does not exist."""
    source = release.source if release.source.is_dir() else release.source.parent
    candidates = [source / folder / "spiece.model" for folder in TOKENIZER_FOLDERS]
    tokenizer = release.tokenizer or next((path for path in candidates if path.is_file()), None)
    if tokenizer is not None and not tokenizer.is_file():
        raise ValueError(f"there is no file {tokenizer}")
    return tokenizer


def _write_part(
    release: Release, kind: ReleaseKind, part: Part, parts: Mapping[PartName, Part], folder: Path, dtype: Dtype
) -> None:
    folder.mkdir(exist_ok=True)
    _store(part, folder / "checkpoints", dtype)
    describe(
        folder,
        _build_config(release, kind, part, parts),
        kind=release.kind,
        source=str(part.files[0].parent),
        licence=kind.licence,
        sha256={file.name: sha256(file) for file in part.files},
    )
    if part.name == "vae":
        latent_stats.write(folder, 0, part.buffers["latent_mean"], part.buffers["latent_std"])


def _store(part: Part, directory: Path, dtype: Dtype) -> None:
    """Read a network, sharded over the devices, and write it as a checkpoint of step 0."""

    def with_dtype(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype), sharding=x.sharding)

    module = abstract_module(part.make)
    _, params, buffers = abstract_arrays(module, widest_mesh(module))
    params = part.load(jax.tree.map(with_dtype, params))
    buffers = {name: jax.device_put(part.buffers[name], like.sharding) for name, like in buffers.items()}
    save_params(directory, {"dit": params} if part.name in TRANSFORMERS else params, buffers)


def _build_config(release: Release, kind: ReleaseKind, part: Part, parts: Mapping[PartName, Part]) -> WorkdirConfig:
    """Return the configuration of the directory that a network is written to."""
    frames, height, width, fps = kind.clip
    data = DataConfig(
        path="data/train", frames=frames, height=height, width=width, fps=fps, batch_size=1, text_length=512
    )
    if part.name == "vae":
        return VAERun(steps=1, data=data, model=part.cfg, ema=0.0)
    if part.name == "text_encoder":
        return ImportedTextEncoder(model=part.cfg)
    if part.name == "image_encoder":
        return ImportedVisionEncoder(model=part.cfg)
    return _transformer_run(release, kind, part, parts, data)


def _transformer_run(
    release: Release, kind: ReleaseKind, part: Part, parts: Mapping[PartName, Part], data: DataConfig
) -> DiTRun:
    text = parts["text_encoder"].cfg if "text_encoder" in parts else None
    return DiTRun(
        steps=1,
        data=data,
        ema=0.0,
        model=dataclasses.replace(part.cfg, fps_reference=data.fps),
        text=text or dataclasses.replace(UMT5_XXL, width=part.cfg.text_width),
        tokenizer="tokenizer.model",
        vae=FOLDERS["vae"],
        text_encoder=FOLDERS["text_encoder"],
        image_encoder=FOLDERS["image_encoder"] if "image_encoder" in parts else None,
        low_noise_expert=FOLDERS["transformer_2"] if "transformer_2" in parts else None,
        first_frame=kind.first_frame,
        objective=ObjectiveConfig(timesteps=TimestepConfig(shift=kind.shift)),
        sampler=_build_sampler(release, kind),
    )


def _build_sampler(release: Release, kind: ReleaseKind) -> SamplerConfig:
    """Return the sampler of the scheduler's configuration, or UniPC with the kind's shift if there is none."""
    scheduler, index = release.source / "scheduler" / "scheduler_config.json", release.source / "model_index.json"
    if scheduler.is_file():
        sampler = read_document(
            scheduler, lambda data: schedulers.parse_sampler(parse_object(data), kind.steps, kind.guidance)
        )
    else:
        fields = {"_class_name": schedulers.UNIPC, "flow_shift": kind.shift}
        sampler = schedulers.parse_sampler(fields, kind.steps, kind.guidance)
    boundary = read_json(index, ModelIndex, ignore_unknown=True).boundary_ratio if index.is_file() else None
    return dataclasses.replace(
        sampler,
        expert_boundary=boundary or kind.expert_boundary or 0.0,
        low_noise_guidance=kind.low_noise_guidance,
    )


@dataclass(frozen=True)
class ModelIndex:
    """What is read of diffusers' `model_index.json`."""

    boundary_ratio: Share | None = None

    def __post_init__(self):
        check_ranges(self)
