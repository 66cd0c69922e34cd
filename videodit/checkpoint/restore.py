"""Models restored from the directories of runs and of imported networks, on one device or over a mesh."""

import dataclasses
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import Weights, restore_params
from videodit.checkpoint.workdir import read_config
from videodit.config.io import WorkdirConfig
from videodit.config.run import DiTRun, ImportedTextEncoder, ImportedVisionEncoder, VAERun
from videodit.models.text import TextEncoder
from videodit.models.text_to_video import TextToVideo
from videodit.models.vae import VAE
from videodit.models.vision import VisionEncoder
from videodit.nn.state import ModelInit, abstract_arrays, abstract_module
from videodit.parallel.mesh import MeshConfig, make_mesh

ConfigT = TypeVar("ConfigT")

NEEDS_VAE = "an autoencoder is needed, of kind 'vae'"


def build_model(config: WorkdirConfig, rngs: nnx.Rngs) -> nnx.Module:
    """Build the model of a configuration, freshly initialized."""
    match config:
        case DiTRun():
            text = None if config.text_encoder else config.text
            return TextToVideo(config.model, text, config.lora, prediction=config.objective.prediction, rngs=rngs)
        case VAERun():
            return VAE(config.model, rngs=rngs)
        case ImportedTextEncoder():
            return TextEncoder(config.model, rngs=rngs)
        case ImportedVisionEncoder():
            return VisionEncoder(config.model, rngs=rngs)
    raise ValueError(f"there is no model of kind {config.kind!r}")


def read_config_of(workdir: Path, cls: type[ConfigT], needed: str) -> ConfigT:
    """Read the configuration of a directory.

    Args:
        needed: what to give instead of a directory that holds something else, for the error.

    Raises:
        ValueError: when it is not a `cls`.
    """
    config = read_config(workdir)
    if not isinstance(config, cls):
        raise ValueError(f"{workdir} holds a run of kind '{config.kind}': {needed}")
    return config


def restore_model(
    workdir: Path,
    config: WorkdirConfig,
    weights: Weights = "ema",
    step: int | None = None,
    mesh: Mesh | None = None,
    *,
    init: ModelInit | None = None,
    strict: bool = False,
) -> tuple[nnx.Module, int]:
    """Restore the model of a directory; returns it and the step of its checkpoint.

    Args:
        config: what the directory holds (`read_config`).
        weights: averaged ("ema") or last ("params") weights; a run without an average has the last ones alone.
        step: the checkpoint; the last one that can be read if None.
        mesh: the devices to shard it over; None is the first device.
        init: builds the model in place of `build_model`.
        strict: refuse to take an earlier checkpoint where the last one is damaged.

    Raises:
        ValueError: when there is no checkpoint, or it is damaged.
    """
    weights = weights if getattr(config, "ema", 0) else "params"
    module = abstract_module(init or (lambda rngs: build_model(config, rngs)))
    graphdef, params, buffers = abstract_arrays(module, mesh)
    *restored, step = restore_params(workdir / "checkpoints", step, weights, params, buffers, strict=strict)
    if mesh is None and jax.process_count() > 1:  # every process uses its own copy of what all of them hold
        restored = jax.tree.map(jnp.asarray, jax.device_get(restored))
    return nnx.merge(graphdef, *restored), step


def restore_over_devices(
    workdir: Path, weights: Weights = "ema", step: int | None = None, *, strict: bool = False
) -> nnx.Module:
    """Restore the model of a directory of any kind, sharded over as many devices as divide it."""
    config = read_config(workdir)
    mesh = widest_mesh(abstract_module(lambda rngs: build_model(config, rngs)))
    return restore_model(workdir, config, weights, step, mesh, strict=strict)[0]


def widest_mesh(module: nnx.Module) -> Mesh | None:
    """Return the mesh of as many devices as divide a model of shapes; None for one device."""
    devices = jax.devices()
    for count in range(len(devices), 1, -1):
        mesh = make_mesh(MeshConfig(data=1, fsdp=count), devices[:count])
        try:
            abstract_arrays(module, mesh)
        except ValueError:
            continue  # a dimension does not divide
        return mesh
    return None


def load_vae(workdir: Path, step: int | None = None, mesh: Mesh | None = None) -> tuple[VAE, VAERun, int]:
    """Load an autoencoder with averaged weights and its latents' statistics; returns its run and step too.

    Raises:
        ValueError: when the directory holds no trained autoencoder.
    """
    run = read_config_of(workdir, VAERun, NEEDS_VAE)
    model, step = restore_model(workdir, run, "ema", step, mesh, strict=True)  # latents are of its last weights
    latent_stats.load(model, workdir)
    return model, run, step


def load_text_encoder(workdir: Path, run: DiTRun, mesh: Mesh | None = None) -> TextEncoder:
    """Load a frozen text encoder of a run's shape; it computes in the type that the run says.

    No earlier checkpoint is taken where the last one is damaged, since embeddings were computed with that.

    Raises:
        ValueError: when the directory holds none, one of another shape, or a damaged one.
    """
    config = read_text_encoder_config(workdir, run)
    init: ModelInit = lambda rngs: TextEncoder(run.text, rngs=rngs)  # noqa: E731
    return restore_model(workdir, config, "params", None, mesh, init=init, strict=True)[0]


def read_text_encoder_config(workdir: Path, run: DiTRun | None = None) -> ImportedTextEncoder:
    """Read the configuration of a text encoder's directory, of a run's shape if one is given.

    Raises:
        ValueError: as `load_text_encoder`.
    """
    config = read_config_of(workdir, ImportedTextEncoder, "a text encoder is needed, of kind 'text'")
    if run and dataclasses.replace(config.model, dtype=run.text.dtype, remat=run.text.remat) != run.text:
        raise ValueError(
            f"the text encoder of {workdir} is not of the run's shape: {config.model} there, {run.text} here"
        )
    return config


def load_text_encoder_on_host(workdir: Path, run: DiTRun | None = None) -> tuple[TextEncoder, ImportedTextEncoder, int]:
    """Load a text encoder whose weights are NumPy arrays; returns its configuration and step too.

    No device memory is used. Damage and errors as `load_text_encoder`.
    """
    config, directory = read_text_encoder_config(workdir, run), workdir / "checkpoints"
    module = abstract_module(lambda rngs: TextEncoder(config.model, rngs=rngs))
    graphdef, params, buffers = abstract_arrays(module, None)
    *variables, step = restore_params(directory, None, "params", params, buffers, on_host=True, strict=True)
    return nnx.merge(graphdef, *variables), config, step


def load_vision_encoder(workdir: Path, mesh: Mesh | None = None) -> VisionEncoder:
    """Load an image encoder, as its last checkpoint; ValueError when the directory holds none, or it is damaged."""
    config = read_config_of(workdir, ImportedVisionEncoder, "an image encoder is needed, of kind 'vision'")
    return restore_model(workdir, config, "params", None, mesh, strict=True)[0]
