"""The training objective as a value: what the network predicts, at which times, and how its errors become a loss.

An objective makes a weighted squared error for every value; a reducer makes of those one loss for every clip. The two
know nothing of each other, so that clips which are alone in a row and clips which share one have the same objective.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from videodit.diffusion.path import interpolate, over, velocity
from videodit.diffusion.timesteps import TimestepConfig
from videodit.registry import Registry
from videodit.shapes import PerClip

Prediction = Literal["velocity", "data"]
VelocityOfTokensFn = Callable[[Float[Array, "B *dims"], Float[Array, "B ..."]], Float[Array, "B *dims"]]
"""`velocity(x, t) -> v`, with one time for each clip or for each token."""

Reducer = Callable[[Float[Array, "B *dims"]], Float[Array, "B ..."]]
"""From the errors of all values to one loss for every clip."""

WeightingFn = Callable[[Float[Array, "..."]], Float[Array, "..."]]
WEIGHTINGS: Registry[WeightingFn] = Registry("loss weighting")
"""Loss weightings by name: functions of time."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The objective of a transformer.

    Attributes:
        prediction: what the network's output is: the "velocity" of the path, or the "data" that it leads to, from which
            the velocity is computed (`TextToVideo`).
        timesteps: the distribution of training times.
        weighting: of squared velocity errors, by time: a name of `WEIGHTINGS`, or `MODULE:FUNCTION`.
    """

    prediction: Prediction = "velocity"
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    weighting: str = "uniform"

    def __post_init__(self):
        WEIGHTINGS.get(self.weighting)


def compute_loss(
    cfg: ObjectiveConfig,
    velocity_fn: VelocityOfTokensFn,
    data: Float[Array, "B *dims"],
    noise: Float[Array, "B *dims"],
    t: Float[Array, "B ..."],
    reduce: Reducer,
) -> Float[Array, "B ..."]:
    """Return the weighted squared error of the velocity at given times and noise, reduced: float32.

    Taking noise and times from outside makes a held-out loss repeatable and comparable between checkpoints
    (Lipman et al. 2022, eq. 23; Esser et al. 2024, eq. 5).

    Args:
        t: times, with leading dims of the data.
    """
    data, noise, t = (x.astype(jnp.float32) for x in (data, noise, t))
    v = velocity_fn(interpolate(data, noise, t), t).astype(jnp.float32)
    error = jnp.square(v - velocity(data, noise))
    if cfg.weighting != "uniform":
        error *= over(WEIGHTINGS.get(cfg.weighting)(t), error)
    return reduce(error)


def mean_per_clip(error: Float[Array, "B *dims"]) -> PerClip:
    """Reduce errors to their mean over each row, which is a clip."""
    return jnp.mean(error, axis=tuple(range(1, error.ndim)))


@WEIGHTINGS.register("uniform")
def weigh_uniformly(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weigh all times alike."""
    return jnp.ones_like(t)


@WEIGHTINGS.register("data")
def weigh_as_data(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weigh the velocity's error as the error of the data that it points to: t^2."""
    return jnp.square(t)


@WEIGHTINGS.register("noise")
def weigh_as_noise(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weigh the velocity's error as the error of the noise that it points to: (1 - t)^2."""
    return jnp.square(1 - t)


@WEIGHTINGS.register("cosmap")
def weigh_as_cosmap(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weigh times by the density of the cosine schedule: 2 / (pi (1 - 2 t + 2 t^2)) (Esser et al. 2024, eq. 21)."""
    return 2 / (math.pi * (1 - 2 * t + 2 * jnp.square(t)))
