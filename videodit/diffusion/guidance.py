"""Classifier-free guidance: extrapolate from the unconditional velocity through the conditional one.

    v = v_uncond + scale (v_cond - v_uncond)        (Ho and Salimans 2022)

The model runs once, on a batch of twice the size.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from videodit.diffusion.path import VelocityFn, over
from videodit.shapes import PerClip

Condition = PyTree[Array]
ConditionalVelocityFn = Callable[[Float[Array, "B *dims"], PerClip, Condition], Float[Array, "B *dims"]]
"""`velocity(x, t, condition) -> v`; every array of the condition has the batch as its first dim."""


def guided(
    velocity_fn: ConditionalVelocityFn,
    cond: Condition,
    uncond: Condition,
    scale: float,
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> VelocityFn:
    """Return the guided velocity, which calls the model once on a batch of twice the size.

    Args:
        cond, uncond: pytrees of equal structure; their arrays are stacked along the first dim, conditional half first.
        scale: guidance scale; 1 is the conditional model, without further cost.
        interval: guide only at times in [lo, hi]; outside, only the conditional half runs (Kynkaanniemi et al. 2024,
            "Applying Guidance in a Limited Interval", there in noise levels t / (1 - t)).
        rescale: how far to rescale each clip's standard deviation to that of the conditional velocity, 0 to 1
            (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", eq. 15 and 16).

    Raises:
        ValueError: for an interval or a rescale out of range.
    """
    low, high = interval
    if not 0 <= low < high <= 1:
        raise ValueError(f"guidance interval {interval} must be two rising times in [0, 1]")
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance rescale is {rescale}: it must lie in [0, 1]")

    def cond_fn(x, t_B):
        return velocity_fn(x, t_B, cond)

    if scale == 1:
        return cond_fn

    def everywhere(x, t_B):
        both = jax.tree.map(lambda c, u: jnp.concatenate([c, u]), cond, uncond)
        v = velocity_fn(jnp.concatenate([x, x]), jnp.concatenate([t_B, t_B]), both).astype(jnp.float32)
        v_cond, v_uncond = v[: len(x)], v[len(x) :]
        active_B = (t_B >= low) & (t_B <= high)
        v = match_std(v_uncond + scale * (v_cond - v_uncond), v_cond, rescale)
        return jnp.where(over(active_B, v), v, v_cond)

    def within(x, t_B):
        anywhere = jnp.any((t_B >= low) & (t_B <= high))
        return jax.lax.cond(anywhere, everywhere, lambda x, t_B: cond_fn(x, t_B).astype(jnp.float32), x, t_B)

    return everywhere if (low, high) == (0, 1) else within


def match_std(v: Float[Array, "B *dims"], reference: Float[Array, "B *dims"], amount: float) -> Float[Array, "B *dims"]:
    """Rescale each clip of `v` towards the standard deviation of `reference`; `amount` is 0 (not) to 1 (fully)."""
    if amount == 0:
        return v
    dims = tuple(range(1, v.ndim))
    ratio = reference.std(dims, keepdims=True) / jnp.maximum(v.std(dims, keepdims=True), 1e-12)
    return v * (1 + amount * (ratio - 1))
