"""The mean and standard deviation of a trained autoencoder's latents, kept in its directory."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from videodit.checkpoint.atomic_write import write_text_atomically
from videodit.models.vae import VAE

FILE = "latents.json"


def write(workdir: Path, step: int, mean: Float[np.ndarray, "C"], std: Float[np.ndarray, "C"]) -> None:
    """Write the statistics, and the step whose weights they were measured with."""
    values = {"step": step, "mean": np.asarray(mean).tolist(), "std": np.asarray(std).tolist()}
    write_text_atomically(workdir / FILE, json.dumps(values, indent=2) + "\n")


def measured_step(workdir: Path) -> int | None:
    """Return the step whose latents were measured; None if none have been."""
    path = workdir / FILE
    return json.loads(path.read_text(encoding="utf-8"))["step"] if path.is_file() else None


def read(workdir: Path) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Read the mean and the standard deviation of every channel.

    Raises:
        ValueError: when there are none, because the autoencoder's training has not ended.
    """
    path = workdir / FILE
    if not path.is_file():
        raise ValueError(f"{workdir} has no {FILE}: train the autoencoder to its end, which measures its latents")
    values = json.loads(path.read_text(encoding="utf-8"))
    return np.asarray(values["mean"], np.float32), np.asarray(values["std"], np.float32)


def load(vae: VAE, workdir: Path) -> None:
    """Set an autoencoder's statistics to those of its directory; errors as `read`."""
    assign(vae, *read(workdir))


def assign(vae: VAE, mean: Float[np.ndarray, "C"], std: Float[np.ndarray, "C"]) -> None:
    """Set an autoencoder's statistics."""
    vae.latent_mean.set_value(jnp.asarray(mean, jnp.float32))
    vae.latent_std.set_value(jnp.asarray(std, jnp.float32))
