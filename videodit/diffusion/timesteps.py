"""Which times to train at, and which times to sample at.

A distribution of t is a quantile function applied to uniform numbers and then shifted towards noise. The shift

    t -> s t / (1 + (s - 1) t)        (logit t -> logit t + log s)

keeps the signal-to-noise ratio that the network sees when clips have more tokens (Esser et al. 2024, "Scaling Rectified
Flow Transformers for High-Resolution Image Synthesis", eq. 23, s = sqrt(tokens / base_tokens)).
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from videodit.diffusion.path import Times
from videodit.shapes import RandomKey

DISTRIBUTIONS = ("uniform", "logit_normal")

Count = int | Int[Array, "..."]
Shift = float | Float[Array, "..."]


@dataclass(frozen=True)
class TimestepConfig:
    """The distribution of training times.

    distribution: "uniform", or "logit_normal": logit t ~ N(mean, std^2) (Esser et al. 2024, section 3.1).
    shift: constant shift towards noise; 1 is none.
    base_tokens: the number of tokens at which `shift` alone holds; more tokens shift further, by sqrt(tokens / base).
        None turns the dependence off.
    stratified: space the draws of a batch evenly in probability from one random start (Kingma et al. 2021, "Variational
        Diffusion Models", appendix I): each t keeps its distribution, and the batch's mean loss has less variance.
    """

    distribution: str = "logit_normal"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    base_tokens: int | None = None
    stratified: bool = True

    def __post_init__(self):
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"timestep distribution {self.distribution!r} is unknown: use one of {DISTRIBUTIONS}")
        if not self.std > 0:
            raise ValueError(f"timestep std is {self.std}: it must be above 0")
        if not self.shift > 0:
            raise ValueError(f"timestep shift is {self.shift}: it must be above 0 (1 is no shift)")
        if self.base_tokens is not None and self.base_tokens < 1:
            raise ValueError(
                f"timestep base_tokens is {self.base_tokens}: it must be at least 1, or None for no effect"
            )


def shift_timesteps(t: Times, shift: Shift) -> Times:
    """Moves times towards noise (shift > 1) or data (shift < 1); `shift_timesteps(., 1 / shift)` undoes it.

    Works on numpy and jax alike; `shift` broadcasts over `t`. 0 and 1 stay where they are.
    """
    return shift * t / (shift * t + (1 - t))


def resolution_shift(shift: float, base_tokens: int | None, num_tokens: Count | None) -> Shift:
    """The whole shift for clips of `num_tokens` tokens: shift * sqrt(num_tokens / base_tokens).

    Raises `ValueError` if the shift depends on the number of tokens and none is given.
    """
    if base_tokens is None:
        return shift
    if num_tokens is None:
        raise ValueError(f"base_tokens is {base_tokens}, so the shift depends on num_tokens: pass num_tokens")
    sqrt = math.sqrt if isinstance(num_tokens, int) else jnp.sqrt
    return shift * sqrt(num_tokens / base_tokens)


def uniforms(key: RandomKey, shape: tuple[int, ...], *, stratified: bool) -> Float[Array, "..."]:
    """Uniform numbers in [0, 1); stratified: evenly spaced from one random start, round and round."""
    if not stratified:
        return jax.random.uniform(key, shape)
    steps = jnp.arange(math.prod(shape)).reshape(shape) / math.prod(shape)
    return (steps + jax.random.uniform(key)) % 1


def quantile(cfg: TimestepConfig, u: Float[Array, "..."], *, num_tokens: Count | None = None) -> Float[Array, "..."]:
    """The time below which a share `u` of the distribution lies."""
    t = u if cfg.distribution == "uniform" else jax.nn.sigmoid(cfg.mean + cfg.std * ndtri(u))
    return shift_timesteps(t, resolution_shift(cfg.shift, cfg.base_tokens, num_tokens))


def density(cfg: TimestepConfig, t: Float[Array, "..."], *, num_tokens: Count | None = None) -> Float[Array, "..."]:
    """The probability density of the distribution at t in (0, 1)."""
    shift = resolution_shift(cfg.shift, cfg.base_tokens, num_tokens)
    t_before = shift_timesteps(t, 1 / shift)
    stretch = shift / (1 + (shift - 1) * t_before) ** 2  # dt / dt_before
    if cfg.distribution == "uniform":
        return jnp.ones_like(t) / stretch
    logit = jnp.log(t_before) - jnp.log1p(-t_before)
    return norm.pdf(logit, cfg.mean, cfg.std) / (t_before * (1 - t_before)) / stretch


def sample_timesteps(
    cfg: TimestepConfig, key: RandomKey, shape: tuple[int, ...], *, num_tokens: Count | None = None
) -> Float[Array, "..."]:
    """Training times of the given shape, float32 in [0, 1].

    `num_tokens`: tokens of a clip, an int or an array that broadcasts over `shape`; needed if `cfg.base_tokens` is set.
    """
    return quantile(cfg, uniforms(key, shape, stratified=cfg.stratified), num_tokens=num_tokens)


def schedule(
    steps: int, shift: float = 1.0, *, t_min: float = 0.0, t_max: float = 1.0, closed: bool = False
) -> Float[np.ndarray, "points"]:
    """The times that a sampler visits: [steps + 1], float64 on the host, falling from 1 (`t_max`) to 0.

    Even steps from `t_max` to `t_min`, shifted; the last time is 0 whatever `t_min` is. `t_min = 0.001` is the grid of
    samplers that discretise time in 1000 parts, Wan's among them. A closed grid reaches `t_min` with its last step but
    one, an open one would with its last. Raises `ValueError` if `steps < 1`, `shift <= 0` or not
    0 <= `t_min` < `t_max` <= 1.
    """
    if steps < 1:
        raise ValueError(f"a sampler of {steps} steps was asked for: it needs at least 1")
    if not shift > 0:
        raise ValueError(f"sampling shift is {shift}: it must be above 0 (1 is no shift)")
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(f"t_min is {t_min} and t_max {t_max}: times fall from the second to the first, within [0, 1]")
    if closed and t_min == 0:
        raise ValueError("a closed grid ends its last step but one at t_min: it must be above 0")
    if closed:
        even = np.append(np.linspace(t_max, t_min, steps), 0.0)
    elif t_max < 1:
        # Counted from the data's end, as diffusers' DPM does: times told in thousandths show the last bit.
        even = 1 - np.linspace(1 - t_min, round(1 - t_max, 12), steps + 1)[::-1]
    else:
        even = np.linspace(t_max, t_min, steps + 1)
    times = even if shift == 1 else shift_timesteps(even, shift)
    times[-1] = 0.0
    return times
