"""Measure what a trained autoencoder's latents look like, for the transformers that will be trained on them."""

from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree, Shaped

from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import checkpoint_step
from videodit.checkpoint.restore import NEEDS_VAE, read_config_of, restore_model
from videodit.config.run import LatentScale, VAERun
from videodit.inference.directory_lock import lock_workdir
from videodit.models.pixels import to_float
from videodit.models.vae import VAE
from videodit.parallel.distributed import on_main_process, sync_devices
from videodit.train.batch import HostBatch


def measure_latents(workdir: Path, batches: Iterable[HostBatch]) -> None:
    """Measure the latents of a trained autoencoder, with averaged weights, unless that has been done.

    Raises:
        ValueError: when another process writes in the workdir.
    """
    due = latent_stats.measured_step(workdir) != checkpoint_step(workdir / "checkpoints")
    sync_devices("latents")  # before one writes what others look for
    if not due:
        return
    with lock_workdir(workdir):
        run = read_config_of(workdir, VAERun, NEEDS_VAE)
        model, step = restore_model(workdir, run, strict=True)
        assign_latent_stats(model, batches, run.latent_scale)
        mean, std = np.asarray(model.latent_mean[...]), np.asarray(model.latent_std[...])
        on_main_process(lambda: latent_stats.write(workdir, step, mean, std))


def assign_latent_stats(vae: VAE, batches: Iterable[HostBatch], scale: LatentScale = "channel") -> None:
    """Set an autoencoder's statistics to those of the batches' latents: the mean of each channel, and a scale.

    A scale per channel weighs all channels alike in what diffusion learns; one for all ("global", Rombach et al. 2022)
    leaves those stronger that tell more about the pixels. It is the standard deviation of the posteriors' means, which
    diffusion learns. Rows that only pad a batch do not count.
    """
    graphdef, state = nnx.split(vae)

    @jax.jit
    def clip_means(state: PyTree, video: Shaped[Array, "B T Y X 3"]) -> tuple[Array, Array]:
        mean, _ = nnx.merge(graphdef, state).encode(to_float(video))
        return mean.mean((1, 2, 3)), jnp.square(mean).mean((1, 2, 3))

    means, squares = [], []
    for batch in batches:
        valid = batch.arrays.valid
        mean, square = jax.device_get(clip_means(state, batch.arrays.video))
        means.append(mean[valid].astype(np.float64))
        squares.append(square[valid].astype(np.float64))
    mean = np.concatenate(means).mean(axis=0)
    variance = np.concatenate(squares).mean(axis=0) - np.square(mean)
    std = np.sqrt(variance if scale == "channel" else np.full_like(variance, variance.mean()))
    latent_stats.assign(vae, mean, std)
