"""What a trained autoencoder's latents look like: their mean and spread, measured once and kept in its workdir."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree, Shaped

from videodit.models.vae import VAE
from videodit.train.config import Spread
from videodit.train.feed import HostBatch, as_pixels

FILE = "latents.json"


def measure(vae: VAE, batches: Iterable[HostBatch], spread: Spread = "channel") -> None:
    """Sets the autoencoder's statistics to those of the batches' latents: a mean a channel, and a spread.

    A spread a channel gives each the same say in what diffusion learns; one for all ("global", Rombach et al. 2022)
    leaves those that tell more about the pixels stronger. It is that of the posteriors' means, which diffusion learns.
    Rows that only fill up a batch do not count.
    """
    graphdef, state = nnx.split(vae)

    @jax.jit
    def moments(state: PyTree, video: Shaped[Array, "B T Y X 3"]) -> tuple[Array, Array]:
        mean, _ = nnx.merge(graphdef, state).encode(as_pixels(video))
        return mean.mean((1, 2, 3)), jnp.square(mean).mean((1, 2, 3))

    first, second = [], []
    for batch in batches:
        real = [clip_id != "" for clip_id in batch.clip_ids]
        one, two = jax.device_get(moments(state, batch.video))
        first.append(one[real].astype(np.float64))
        second.append(two[real].astype(np.float64))
    mean = np.concatenate(first).mean(axis=0)
    variance = np.concatenate(second).mean(axis=0) - np.square(mean)
    std = np.sqrt(variance if spread == "channel" else np.full_like(variance, variance.mean()))
    _set(vae, mean, std)


def save(vae: VAE, workdir: Path, step: int) -> None:
    """Writes the statistics into the autoencoder's workdir, and the step whose weights they were measured with."""
    write(workdir, step, np.asarray(vae.latent_mean[...]), np.asarray(vae.latent_std[...]))


def write(workdir: Path, step: int, mean: Float[np.ndarray, "C"], std: Float[np.ndarray, "C"]) -> None:
    """Writes statistics that are known."""
    values = {"step": step, "mean": mean.tolist(), "std": std.tolist()}
    partial = workdir / f"{FILE}.part"
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, workdir / FILE)


def measured_at(workdir: Path) -> int | None:
    """The step whose latents were measured; None if none have been."""
    path = workdir / FILE
    return json.loads(path.read_text(encoding="utf-8"))["step"] if path.is_file() else None


def load(vae: VAE, workdir: Path) -> None:
    """Sets the statistics to those that the autoencoder's workdir holds; errors as for `read`."""
    _set(vae, *read(workdir))


def read(workdir: Path) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """The statistics that the autoencoder's workdir holds.

    Raises:
        ValueError: when there are none, because its training has not ended.
    """
    path = workdir / FILE
    if not path.is_file():
        raise ValueError(f"{workdir} has no {FILE}: train the autoencoder to its end, which measures its latents")
    values = json.loads(path.read_text(encoding="utf-8"))
    return np.asarray(values["mean"], np.float32), np.asarray(values["std"], np.float32)


def _set(vae: VAE, mean: object, std: object) -> None:
    vae.latent_mean.set_value(jnp.asarray(mean, jnp.float32))
    vae.latent_std.set_value(jnp.asarray(std, jnp.float32))
