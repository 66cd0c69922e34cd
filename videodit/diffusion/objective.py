"""The training objective: how far the predicted velocity is from the path's, one number a clip."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from videodit.diffusion.path import VelocityFn, interpolate, velocity
from videodit.diffusion.timesteps import Count, TimestepConfig, sample_timesteps
from videodit.shapes import PerClip, RandomKey


def loss_at(
    velocity_fn: VelocityFn, data: Float[Array, "B *dims"], noise: Float[Array, "B *dims"], t_B: PerClip
) -> PerClip:
    """The squared error of the velocity at given times and noise, a mean over each clip's own values: float32 [B].

    Taking noise and times from outside makes a held-out loss repeatable and comparable between checkpoints.
    """
    data, noise, t_B = (x.astype(jnp.float32) for x in (data, noise, t_B))
    v = velocity_fn(interpolate(data, noise, t_B), t_B).astype(jnp.float32)
    return jnp.mean(jnp.square(v - velocity(data, noise)), axis=tuple(range(1, data.ndim)))


def flow_matching_loss(
    velocity_fn: VelocityFn,
    data: Float[Array, "B *dims"],
    key: RandomKey,
    cfg: TimestepConfig,
    *,
    num_tokens: Count | None = None,
) -> tuple[PerClip, dict[str, PerClip]]:
    """Per-sample rectified flow loss at times drawn from `cfg` (Lipman et al. 2022, eq. 23; Esser et al. 2024, eq. 5).

    Returns float32 losses [B] (no mean over the batch: weighting and averaging are the caller's) and `{"t_B": times}`.
    `num_tokens`: tokens of a clip, needed if `cfg.base_tokens` is set.
    """
    t_key, noise_key = jax.random.split(key)
    t_B = sample_timesteps(cfg, t_key, data.shape[:1], num_tokens=num_tokens)
    noise = jax.random.normal(noise_key, data.shape, jnp.float32)
    return loss_at(velocity_fn, data, noise, t_B), {"t_B": t_B}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Buckets:
    """Losses summed by bucket of time; batches add up with `+`."""

    sum_K: Float[Array, "K"]
    count_K: Float[Array, "K"]

    def __add__(self, other: "Buckets") -> "Buckets":
        return Buckets(self.sum_K + other.sum_K, self.count_K + other.count_K)

    @property
    def mean_K(self) -> Float[Array, "K"]:
        """The mean loss of every bucket; NaN where a bucket is empty."""
        return jnp.where(self.count_K > 0, self.sum_K / jnp.maximum(self.count_K, 1), jnp.nan)


def bucketed(loss_B: PerClip, t_B: PerClip, edges: Sequence[float]) -> Buckets:
    """Sums and counts of the losses in each bucket [edges[k], edges[k + 1]) of time.

    A time outside the edges counts in the nearest bucket, so that every clip counts once.
    Raises `ValueError` unless there are two edges or more and they rise.
    """
    if len(edges) < 2 or np.any(np.diff(edges) <= 0):
        raise ValueError(f"bucket edges {list(edges)} must be two or more rising numbers")
    bucket_B = jnp.searchsorted(jnp.asarray(edges[1:-1], jnp.float32), t_B, side="right")
    zeros_K = jnp.zeros(len(edges) - 1, jnp.float32)
    return Buckets(zeros_K.at[bucket_B].add(loss_B), zeros_K.at[bucket_B].add(1.0))
