"""The mean and standard deviation of a trained autoencoder's latents, kept in its directory."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from videodit.checkpoint.atomic_write import write_text_atomically
from videodit.config.json_file import read_json
from videodit.models.vae import VAE
from videodit.ranges import Range, Steps, check_ranges

FILE = "latents.json"
Means = Annotated[tuple[float, ...], Range(-1e30, 1e30)]
Deviations = Annotated[tuple[float, ...], Range(1e-30, 1e30)]


@dataclass(frozen=True)
class LatentStats:
    """The mean and standard deviation of every channel, and the step whose weights they were measured with."""

    step: Steps
    mean: Means
    std: Deviations

    def __post_init__(self):
        check_ranges(self)
        if not len(self.mean) == len(self.std) > 0:
            raise ValueError(
                f"mean has {len(self.mean)} channels and std {len(self.std)}: both need as many, at least 1"
            )


def write(workdir: Path, step: int, mean: Float[np.ndarray, "C"], std: Float[np.ndarray, "C"]) -> None:
    """Write the statistics, and the step whose weights they were measured with; ValueError as `LatentStats`."""
    stats = LatentStats(step, tuple(np.asarray(mean).tolist()), tuple(np.asarray(std).tolist()))
    write_text_atomically(workdir / FILE, json.dumps(asdict(stats), indent=2) + "\n")


def measured_step(workdir: Path) -> int | None:
    """Return the step whose latents were measured; None if none have been. ValueError as `LatentStats`."""
    path = workdir / FILE
    return read_json(path, LatentStats).step if path.is_file() else None


def read(workdir: Path) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Read the mean and the standard deviation of every channel.

    Raises:
        ValueError: when there are none, because the autoencoder's training has not ended, and as `LatentStats`.
    """
    path = workdir / FILE
    if not path.is_file():
        raise ValueError(f"{workdir} has no {FILE}: train the autoencoder to its end, which measures its latents")
    stats = read_json(path, LatentStats)
    return np.asarray(stats.mean, np.float32), np.asarray(stats.std, np.float32)


def load(vae: VAE, workdir: Path) -> None:
    """Set an autoencoder's statistics to those of its directory; ValueError as `read`, and for other channels."""
    mean, std = read(workdir)
    if mean.shape != vae.latent_mean.shape:
        raise ValueError(
            f"{workdir / FILE}: mean and std have {len(mean)} channels, "
            f"the autoencoder's latents have {vae.latent_mean.shape[0]}"
        )
    assign(vae, mean, std)


def assign(vae: VAE, mean: Float[np.ndarray, "C"], std: Float[np.ndarray, "C"]) -> None:
    """Set an autoencoder's statistics."""
    vae.latent_mean.set_value(jnp.asarray(mean, jnp.float32))
    vae.latent_std.set_value(jnp.asarray(std, jnp.float32))
