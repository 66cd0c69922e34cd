"""The straight path from data (t = 0) to noise (t = 1), and what a velocity predicts.

    x_t = (1 - t) data + t noise,        v = dx_t/dt = noise - data

Rectified flow: Liu et al. 2022, "Flow Straight and Fast"; Lipman et al. 2022, "Flow Matching for Generative Modeling".
In terms of diffusion solvers, alpha = 1 - t, sigma = t and lambda = log(alpha / sigma).
The rank of the data is arbitrary: `t` has the leading dims of the data (a time per clip, or per token).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

VelocityFn = Callable[[Float[Array, "B *dims"], Float[Array, "B"]], Float[Array, "B *dims"]]
"""`velocity(x, t) -> v`, a model with its conditioning closed over."""

Times = Float[Array, "..."] | Float[np.ndarray, "..."]


def over(t: Shaped[Array, "..."], x: Float[Array, "..."]) -> Shaped[Array, "..."]:
    """Append dims of size 1 to `t`, so that it broadcasts over `x`.

    Raises:
        ValueError: if the shape of `t` is not a prefix of the shape of `x`.
    """
    if x.shape[: t.ndim] != t.shape:
        raise ValueError(f"times of shape {t.shape} do not fit data of shape {x.shape}: t must have its leading dims")
    return jnp.expand_dims(t, tuple(range(t.ndim, x.ndim)))


def interpolate(
    data: Float[Array, "*dims"], noise: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """Return the point x_t of the path between `data` and `noise`; t in [0, 1] with the leading dims of the data."""
    t = over(t, data)
    return (1 - t) * data + t * noise


def velocity(data: Float[Array, "*dims"], noise: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """Return the velocity of the path, which is constant in t."""
    return noise - data


def data_from_velocity(
    x: Float[Array, "*dims"], v: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """Return the data prediction of `v` at `x`: x - t v."""
    return x - over(t, x) * v


def alpha(t: Times) -> Times:
    """Return the coefficient of the data in x_t; numpy in, numpy out."""
    return 1 - t


def sigma(t: Times) -> Times:
    """Return the coefficient of the noise in x_t; numpy in, numpy out."""
    return t


def half_log_snr(t: Times) -> Times:
    """Return lambda = log(alpha / sigma), from +inf at t = 0 to -inf at t = 1; numpy in, numpy out."""
    xp = np if isinstance(t, np.ndarray) else jnp
    return xp.log1p(-t) - xp.log(t)
