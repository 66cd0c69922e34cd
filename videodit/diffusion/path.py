"""The straight path from data (t = 0) to noise (t = 1), and every way to say what a network predicts on it.

    x_t = (1 - t) data + t noise,        v = dx_t/dt = noise - data

Rectified flow: Liu et al. 2022, "Flow Straight and Fast"; Lipman et al. 2022, "Flow Matching for Generative Modeling".
In the language of diffusion solvers alpha = 1 - t, sigma = t and lambda = log(alpha / sigma).
Nothing here knows the rank of the data: `t` has the leading dims of the data (one time a clip, or one a token).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

VelocityFn = Callable[[Float[Array, "B *dims"], Float[Array, "B"]], Float[Array, "B *dims"]]
"""`velocity(x, t) -> v`, the only thing that this room knows of a model; conditioning is closed over."""

Times = Float[Array, "..."] | Float[np.ndarray, "..."]


def over(t: Shaped[Array, "..."], x: Float[Array, "..."]) -> Shaped[Array, "..."]:
    """`t` with trailing dims of size 1, so that it broadcasts over `x`.

    Raises `ValueError` if the shape of `t` is not the beginning of the shape of `x`.
    """
    if x.shape[: t.ndim] != t.shape:
        raise ValueError(f"times of shape {t.shape} do not fit data of shape {x.shape}: t must have its leading dims")
    return jnp.expand_dims(t, tuple(range(t.ndim, x.ndim)))


def interpolate(
    data: Float[Array, "*dims"], noise: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """The point x_t of the path between `data` and `noise`; t in [0, 1] with the leading dims of the data."""
    t = over(t, data)
    return (1 - t) * data + t * noise


def velocity(data: Float[Array, "*dims"], noise: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """The velocity of the path, the same at every t."""
    return noise - data


def data_from_velocity(
    x: Float[Array, "*dims"], v: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """The data that `v` at `x` points back to: x - t v."""
    return x - over(t, x) * v


def noise_from_velocity(
    x: Float[Array, "*dims"], v: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """The noise that `v` at `x` points on to: x + (1 - t) v."""
    return x + (1 - over(t, x)) * v


def velocity_from_data(
    x: Float[Array, "*dims"], data: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """The velocity that a data prediction stands for: (x - data) / t; singular at t = 0."""
    return (x - data) / over(t, x)


def velocity_from_noise(
    x: Float[Array, "*dims"], noise: Float[Array, "*dims"], t: Float[Array, "..."]
) -> Float[Array, "*dims"]:
    """The velocity that a noise prediction stands for: (noise - x) / (1 - t); singular at t = 1."""
    return (noise - x) / (1 - over(t, x))


def alpha(t: Times) -> Times:
    """The share of data in x_t; numpy in, numpy out."""
    return 1 - t


def sigma(t: Times) -> Times:
    """The share of noise in x_t; numpy in, numpy out."""
    return t


def half_log_snr(t: Times) -> Times:
    """lambda = log(alpha / sigma), falling from +inf at t = 0 to -inf at t = 1; numpy in, numpy out."""
    xp = np if isinstance(t, np.ndarray) else jnp
    return xp.log1p(-t) - xp.log(t)


def time_from_half_log_snr(half_log_snr: Times) -> Times:
    """The inverse of `half_log_snr`: t = 1 / (1 + exp(lambda)); numpy in, numpy out."""
    xp = np if isinstance(half_log_snr, np.ndarray) else jnp
    return 0.5 * (1 - xp.tanh(0.5 * half_log_snr))
