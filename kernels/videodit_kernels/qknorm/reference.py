"""The formulas: the reference for the kernel."""

import jax.numpy as jnp
from jax import Array, lax


def norm_rope(x: Array, scale: Array, cos: Array, sin: Array, eps: float) -> Array:
    """Compute `api.norm_rope`, both parts in float32, rounded to the type of `x` after each."""
    shape = x.shape
    x32 = x.reshape(*shape[: 4 - scale.ndim], -1).astype(jnp.float32)
    y = x32 * lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps) * scale.reshape(-1)
    return apply_rope(y.astype(x.dtype).reshape(shape), cos, sin)


def apply_rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate dim i of every head of x [B, T, N, H] against dim i + H/2, in float32; cos and sin [B, T, H/2]."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
