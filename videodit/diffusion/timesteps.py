"""Distributions of training times, and schedules of sampling times.

Training times are quantiles of uniform numbers, shifted towards noise. The shift

    t -> s t / (1 + (s - 1) t)        (logit t -> logit t + log s)

preserves the effective signal-to-noise ratio of clips with more tokens (Esser et al. 2024, "Scaling Rectified
Flow Transformers for High-Resolution Image Synthesis", eq. 23, s = sqrt(tokens / base_tokens)).
"""

import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from videodit.diffusion.path import Times
from videodit.ranges import Positive, Range, Size, check_ranges
from videodit.shapes import RandomKey

DISTRIBUTIONS = ("uniform", "logit_normal")

Count = int | Int[Array, "..."]
Shift = float | Float[Array, "..."]


@dataclass(frozen=True)
class TimestepConfig:
    """The distribution of training times.

    Attributes:
        distribution: "uniform", or "logit_normal": logit t ~ N(mean, std^2) (Esser et al. 2024, section 3.1).
        mean, std: of the logit-normal distribution.
        shift: constant shift towards noise; 1 is none.
        base_tokens: the number of tokens for which the shift is `shift`; it grows with sqrt(tokens / base_tokens). None
            for a constant shift.
        stratified: space the times of a batch evenly in probability from one random start (Kingma et al. 2021,
            "Variational Diffusion Models", appendix I), which lowers the variance of the batch's mean loss.
    """

    distribution: str = "logit_normal"
    mean: Annotated[float, Range(-100, 100)] = 0.0
    std: Positive = 1.0
    shift: Positive = 1.0
    base_tokens: Size | None = None
    stratified: bool = True

    def __post_init__(self):
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"timestep distribution {self.distribution!r} is unknown: use one of {DISTRIBUTIONS}")
        check_ranges(self)


def shift_timesteps(t: Times, shift: Shift) -> Times:
    """Shift times towards noise (shift > 1) or data (shift < 1); inverted by `shift_timesteps(., 1 / shift)`.

    Works on numpy and jax arrays; `shift` broadcasts over `t`. 0 and 1 are fixed points.
    """
    return shift * t / (shift * t + (1 - t))


def resolution_shift(shift: float, base_tokens: int | None, num_tokens: Count | None) -> Shift:
    """Return the shift for clips of `num_tokens` tokens: shift * sqrt(num_tokens / base_tokens).

    Raises:
        ValueError: if the shift depends on the number of tokens and `num_tokens` is None.
    """
    if base_tokens is None:
        return shift
    if num_tokens is None:
        raise ValueError(f"base_tokens is {base_tokens}, so the shift depends on num_tokens: pass num_tokens")
    sqrt = math.sqrt if isinstance(num_tokens, int) else jnp.sqrt
    return shift * sqrt(num_tokens / base_tokens)


def uniforms(key: RandomKey, shape: tuple[int, ...], *, stratified: bool) -> Float[Array, "..."]:
    """Return uniform numbers in [0, 1); stratified: evenly spaced from one random start, modulo 1."""
    if not stratified:
        return jax.random.uniform(key, shape)
    steps = jnp.arange(math.prod(shape)).reshape(shape) / math.prod(shape)
    return (steps + jax.random.uniform(key)) % 1


def quantile(cfg: TimestepConfig, u: Float[Array, "..."], *, num_tokens: Count | None = None) -> Float[Array, "..."]:
    """Return the quantile of the distribution at probability `u`."""
    t = u if cfg.distribution == "uniform" else jax.nn.sigmoid(cfg.mean + cfg.std * ndtri(u))
    return shift_timesteps(t, resolution_shift(cfg.shift, cfg.base_tokens, num_tokens))


def density(cfg: TimestepConfig, t: Float[Array, "..."], *, num_tokens: Count | None = None) -> Float[Array, "..."]:
    """Return the probability density of the distribution at t in (0, 1)."""
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
    """Sample training times, float32 in [0, 1].

    Args:
        num_tokens: tokens of a clip, an int or an array that broadcasts over `shape`; needed if `cfg.base_tokens` is
            set.
    """
    return quantile(cfg, uniforms(key, shape, stratified=cfg.stratified), num_tokens=num_tokens)


def schedule(
    steps: int, shift: float = 1.0, *, t_min: float = 0.0, t_max: float = 1.0, closed: bool = False
) -> Float[np.ndarray, "points"]:
    """Return the times of a sampler: [steps + 1], float64 on the host, decreasing from `t_max` to 0.

    Times are evenly spaced from `t_max` to `t_min`, then shifted, and the last one is 0. `t_min = 0.001` is the grid of
    samplers that discretize time in 1000 steps, like Wan's. A closed grid has `t_min` as its second to last time, an
    open grid as its last one, before that is set to 0.

    Raises:
        ValueError: if `steps < 1`, `shift <= 0` or not 0 <= `t_min` < `t_max` <= 1.
    """
    if steps < 1:
        raise ValueError(f"a sampler of {steps} steps is impossible: it needs at least 1")
    if not shift > 0:
        raise ValueError(f"sampling shift is {shift}: it must be above 0 (1 is no shift)")
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(f"t_min is {t_min} and t_max {t_max}: they must be 0 <= t_min < t_max <= 1")
    if closed and t_min == 0:
        raise ValueError("t_min of a closed grid must be above 0: it is its second to last time")
    if closed:
        even = np.append(np.linspace(t_max, t_min, steps), 0.0)
    elif t_max < 1:
        # Counted from the data's end, as in diffusers' DPM: quantized timesteps depend on the last bit.
        even = 1 - np.linspace(1 - t_min, round(1 - t_max, 12), steps + 1)[::-1]
    else:
        even = np.linspace(t_max, t_min, steps + 1)
    times = even if shift == 1 else shift_timesteps(even, shift)
    times[-1] = 0.0
    return times
