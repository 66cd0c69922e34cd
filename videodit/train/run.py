"""Train a run: open its data and the models that it needs, train it to its last step in a workdir."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from videodit_data.formats import open_dataset
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.text_inputs import CachedText
from videodit_data.storage.dataset import Dataset
from videodit_data.storage.shard_check import ShardCheck

from videodit.checkpoint.checkpoints import Weights
from videodit.checkpoint.identity import vae_identity
from videodit.checkpoint.restore import load_text_encoder, load_vae, read_config_of, restore_model
from videodit.checkpoint.workdir import resolve_paths
from videodit.config.run import DiTRun, Run, VAERun
from videodit.inference.tokenizer import open_tokenizer
from videodit.nn.state import dotted_path, split_model
from videodit.train import data
from videodit.train.latent_stats import measure_latents
from videodit.train.loop import InitialParams, Outcome, batch_multiple, local_batch_indices, train
from videodit.train.task import TASKS, Task

LATENT_CLIPS = 256  # of which the latents of a trained autoencoder are measured


def run_training(
    run: Run,
    workdir: str | Path,
    *,
    console: Console | None = None,
    init: str | Path | None = None,
    strict: bool = False,
) -> Outcome:
    """Train a run to its last step, resuming from the last checkpoint in `workdir` if there is one.

    The latents of a trained autoencoder are measured then, on training clips, for the transformers to come. While it
    trains, the data sets' files are compared with the hashes in their manifests.

    Args:
        console: where progress is shown; standard error if None.
        init: workdir of a trained transformer, whose weights the run begins with; tokenizer, autoencoder and text
            encoder are searched there first.
        strict: refuse to resume, or to begin, from an earlier checkpoint where the last one is damaged.

    Raises:
        ValueError: when a data set, tokenizer or autoencoder is missing or does not fit the run, or a file of a data
            set has changed since it was written.
    """
    workdir, initial_params = Path(workdir), None
    if init is not None:
        init = Path(init)
        if not isinstance(run, DiTRun):
            raise ValueError("init is for transformers: an autoencoder begins from scratch")
        run = resolve_paths(run, init)
        initial_params = trained_params(init, run, strict=strict)
    indices, multiple = local_batch_indices(run), batch_multiple(run)
    texts = data.open_texts(run, open_tokenizer(run))
    config, heldout = data.training_config(run, multiple), data.heldout_config(run, multiple)
    evaluation = None if heldout is None else data.HeldoutBatches(heldout, texts, run.data.eval_clips, indices)
    with ExitStack() as stack:
        datasets = [open_dataset(path) for path in data.dataset_paths(run)]
        check = stack.enter_context(ShardCheck(datasets, jax.process_index(), jax.process_count()))
        loader = BatchIterator(config, texts, local_batch_indices=indices, check=check.poll)
        stack.callback(loader.close)
        empty_text = texts("") if isinstance(texts, CachedText) else None
        task = build_task(run, datasets, empty_text)
        outcome = train(
            run, task, loader, evaluation, workdir, console=console, initial_params=initial_params, strict=strict
        )
        check.finish(hurry=outcome.interrupted_by is not None)
    if isinstance(run, VAERun) and not outcome.interrupted_by:
        measure_latents(workdir, data.HeldoutBatches(config.as_evaluation(), texts, LATENT_CLIPS))
    return outcome


def build_task(run: Run, datasets: Sequence[Dataset] = (), empty_text: Mapping[str, np.ndarray] | None = None) -> Task:
    """Build the task of a run, with the autoencoder, and the text encoder if it is frozen, that it needs.

    Args:
        empty_text: embeddings and mask of the empty caption, of a run whose data carry those of all captions: it needs
            no text encoder.

    Raises:
        ValueError: when those are missing, or one of its data sets is of latents that another autoencoder encoded.
    """
    latent_paths = [dataset.path for dataset in datasets if dataset.manifest.content == "latent"]
    if isinstance(run, VAERun) and latent_paths:
        raise ValueError(f"{latent_paths[0]} holds latents, and an autoencoder is trained on videos: name those")
    task = TASKS.get(run.kind)
    required = [name for name in task.required_models(run) if not (name == "text" and empty_text is not None)]
    models: dict[str, nnx.Module] = {}
    if "vae" in required:
        models["vae"], _, step = load_vae(Path(run.vae))
        if latent_paths:
            identity = vae_identity(Path(run.vae), models["vae"], step)  # reads all weights
            for path in latent_paths:
                data.check_encoder(path, "vae", identity, run.vae)
    if "text" in required:
        models["text"] = load_text_encoder(Path(run.text_encoder), run)
    return task(run, models, empty_text)


def trained_params(workdir: Path, run: DiTRun, weights: Weights = "ema", *, strict: bool = False) -> InitialParams:
    """Return a function that restores, over a mesh, the weights of a transformer for a run to begin with.

    Args:
        strict: have it refuse to take an earlier checkpoint where the last one is damaged.

    Raises:
        ValueError: when the directory holds none, or one of another shape.
    """
    source = read_config_of(workdir, DiTRun, "to begin with, give one of kind 'dit'")
    differing = [
        f"{name} is {value!r} there and {getattr(run.model, name)!r} here"
        for name, value in vars(source.model).items()
        if name not in ("remat", "dtype", "conditions", "attention") and getattr(run.model, name) != value
    ]
    if differing:
        raise ValueError(f"the transformer of {workdir} is another one than the run's: {'; '.join(differing)}")

    def restore(mesh: Mesh) -> dict[str, jax.Array]:
        model, _ = restore_model(workdir, source, weights, None, mesh, strict=strict)
        return {dotted_path(path): x for path, x in jax.tree.leaves_with_path(list(split_model(model)[1:]))}

    return restore
