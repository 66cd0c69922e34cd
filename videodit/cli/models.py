"""Trained models opened from their workdirs, on one device or over a mesh."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8
from videodit_data.formats import open_dataset
from videodit_data.tokenizer import NoTokenizer, Tokenizer

from videodit.cli.identity import check, identity_of
from videodit.models.text import TextEncoder
from videodit.models.vae import VAE
from videodit.models.vision import VisionEncoder
from videodit.parallel.distributed import on_first, wait_for_all
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train import latents
from videodit.train.checkpoint import Which, checkpoint_step, restore_params
from videodit.train.config import DiTRun, Run, TextModel, VAERun, VisionModel
from videodit.train.config_io import Held
from videodit.train.feed import HostBatch
from videodit.train.packed import PackedTask
from videodit.train.state import Init, abstract_model, dotted, shapes_of, split
from videodit.train.tasks import DiTTask, Task, VAETask, model_of
from videodit.train.workdir import read_run

T = TypeVar("T")
Clip = UInt8[np.ndarray, "T Y X 3"]


def tokenizer_of(run: Run) -> Tokenizer | NoTokenizer:
    """The tokenizer of a run; an autoencoder reads no text.

    Raises:
        ValueError: when there is no such file, or the text encoder has fewer token ids than it makes.
    """
    if not isinstance(run, DiTRun):
        return NoTokenizer()
    tokenizer = Tokenizer(run.tokenizer)
    if tokenizer.size > run.text.vocab_size:
        raise ValueError(
            f"text.vocab_size is {run.text.vocab_size}, but {run.tokenizer} makes {tokenizer.size} token ids"
        )
    return tokenizer


def task_of(run: Run, data_sets: Sequence[str] = (), empty: Mapping[str, np.ndarray] | None = None) -> Task:
    """What a run trains, with the autoencoder, and the text encoder if it trains none along, that it needs opened.

    Args:
        empty: embeddings and mask of the empty caption, of a run whose data carry those of all captions: it needs no
            text encoder.

    Raises:
        ValueError: when those are missing, or one of its data sets is of latents that another autoencoder made.
    """
    coded = [path for path in data_sets if open_dataset(path).manifest.content == "latent"]
    if isinstance(run, VAERun):
        if coded:
            raise ValueError(f"{coded[0]} holds latents, and an autoencoder is trained on videos: name those")
        return VAETask(run)
    vae, vae_run, step = load_vae(Path(run.vae))
    if coded:
        made_by = identity_of(vae, vae_run, step)  # reads all weights
        for path in coded:
            check(path, "vae", made_by, run.vae)
    encoder = load_text(Path(run.text_encoder), run) if run.text_encoder and empty is None else None
    return (PackedTask if run.data.packed else DiTTask)(run, vae, encoder, empty)


def load_vae(workdir: Path, step: int | None = None, mesh: Mesh | None = None) -> tuple[VAE, VAERun, int]:
    """An autoencoder with averaged weights and its latents' statistics, its run, and the step that it is of.

    Raises:
        ValueError: when the directory holds no trained autoencoder.
    """
    run = read(workdir, VAERun, "an autoencoder is wanted, of kind 'vae'")
    model, step = restore(workdir, run, lambda rngs: VAE(run.model, rngs=rngs), "ema", step, mesh)
    latents.load(model, workdir)
    return model, run, step


def load_text(workdir: Path, run: DiTRun, mesh: Mesh | None = None) -> TextEncoder:
    """A text encoder that is used as it is, of a run's shape; it computes in the type that the run says.

    Raises:
        ValueError: when the directory holds none, or one of another shape.
    """
    held = read_text(workdir, run)
    return restore(workdir, held, lambda rngs: TextEncoder(run.text, rngs=rngs), "params", None, mesh)[0]


def read_text(workdir: Path, run: DiTRun | None = None) -> TextModel:
    """What the directory of a text encoder holds, of a run's shape if one is given; errors as of `load_text`."""
    held = read(workdir, TextModel, "a text encoder is wanted, of kind 'text'")
    if run and dataclasses.replace(held.model, dtype=run.text.dtype, remat=run.text.remat) != run.text:
        raise ValueError(
            f"the text encoder of {workdir} is not of the run's shape: {held.model} there, {run.text} here"
        )
    return held


def text_on_host(workdir: Path, run: DiTRun | None = None) -> tuple[TextEncoder, TextModel, int]:
    """A text encoder whose weights are NumPy arrays, what its directory holds, and the step; errors as of `load_text`.

    No device is asked for memory.
    """
    held, directory = read_text(workdir, run), workdir / "checkpoints"
    graphdef, params, buffers = abstract_model(shapes_of(lambda rngs: TextEncoder(held.model, rngs=rngs)), None)
    step = checkpoint_step(directory)
    variables = restore_params(directory, step, "params", params, buffers, on_host=True)
    return nnx.merge(graphdef, *variables), held, step


def load_vision(workdir: Path, mesh: Mesh | None = None) -> VisionEncoder:
    """An image encoder; `ValueError` when the directory holds none."""
    held = read(workdir, VisionModel, "an image encoder is wanted, of kind 'vision'")
    return restore(workdir, held, lambda rngs: VisionEncoder(held.model, rngs=rngs), "params", None, mesh)[0]


def trained_weights(workdir: Path, run: DiTRun, which: Which = "ema") -> Callable[[Mesh], dict[str, jax.Array]]:
    """Opens, over a mesh, the weights of a transformer that a run may begin with, by dotted path.

    Raises:
        ValueError: when the directory holds none, or one of another shape.
    """
    held = read(workdir, DiTRun, "to begin with, give one of kind 'dit'")
    other = [
        f"{name} is {there!r} there and {here!r} here"
        for name, there in vars(held.model).items()
        if name not in ("remat", "dtype") and there != (here := getattr(run.model, name))
    ]
    if other:
        raise ValueError(f"the transformer of {workdir} is another one than the run's: {'; '.join(other)}")

    def begin(mesh: Mesh) -> dict[str, jax.Array]:
        model, _ = restore(workdir, held, lambda rngs: model_of(held, rngs), which, None, mesh)
        return {dotted(path): x for path, x in jax.tree.leaves_with_path(list(split(model)[1:]))}

    return begin


def read(workdir: Path, kind: type[T], wanted: str) -> T:
    """What a directory holds, if it is of that kind; `ValueError`, with what is wanted, if not."""
    held = read_run(workdir)
    if not isinstance(held, kind):
        raise ValueError(f"{workdir} holds a run of kind '{held.kind}': {wanted}")
    return held


def open_model(workdir: Path, which: Which = "ema", step: int | None = None) -> Any:
    """The model of a directory of any kind, over as many devices as divide it."""
    held = read_run(workdir)
    makers: dict[str, Init] = {
        "dit": lambda rngs: model_of(held, rngs),
        "vae": lambda rngs: VAE(held.model, rngs=rngs),
        "text": lambda rngs: TextEncoder(held.model, rngs=rngs),
        "vision": lambda rngs: VisionEncoder(held.model, rngs=rngs),
    }
    make = makers[held.kind]
    return restore(workdir, held, make, which, step, most_devices(shapes_of(make)))[0]


def most_devices(model: nnx.Module) -> Mesh | None:
    """A mesh of as many devices as divide a model of shapes; None for one."""
    devices = jax.devices()
    for count in range(len(devices), 1, -1):
        mesh = make_mesh(MeshConfig(data=1, fsdp=count), devices[:count])
        try:
            abstract_model(model, mesh)
        except ValueError:
            continue  # a dimension does not divide
        return mesh
    return None


def measure_latents(workdir: Path, batches: Iterable[HostBatch]) -> None:
    """Measures the latents of a trained autoencoder, with averaged weights, unless that has been done."""
    due = latents.measured_at(workdir) != checkpoint_step(workdir / "checkpoints")
    wait_for_all("latents")  # before one writes what others look for
    if due:
        run = read_run(workdir)
        model, step = restore(workdir, run, lambda rngs: VAE(run.model, rngs=rngs), "ema", None)
        latents.measure(model, batches, run.spread)
        on_first(lambda: latents.save(model, workdir, step))


def restore(
    workdir: Path, held: Held, make: Init, which: Which, step: int | None, mesh: Mesh | None = None
) -> tuple[Any, int]:
    """The model of a directory, over the devices of a mesh or on the first, and the step that it is of."""
    directory = workdir / "checkpoints"
    step, which = checkpoint_step(directory, step), which if getattr(held, "ema", 0) else "params"
    graphdef, params, buffers = abstract_model(shapes_of(make), mesh)
    restored = restore_params(directory, step, which, params, buffers)
    if mesh is None and jax.process_count() > 1:  # of what all processes hold, each goes on with its own copy
        restored = jax.tree.map(jnp.asarray, jax.device_get(restored))
    return nnx.merge(graphdef, *restored), step
