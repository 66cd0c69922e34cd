"""The formulas: the reference for the kernel."""

import jax.numpy as jnp
from jax import Array, lax


def adaln(x: Array, y: Array | None, gate: Array | None, scale: Array, shift: Array, eps: float) -> tuple[Array, Array]:
    """Compute `api.adaln`, in float32 but for the residual, which has the type of `x`."""
    if y is not None:
        x = (x + (y if gate is None else gate * y)).astype(x.dtype)
    x32 = x.astype(jnp.float32)
    centered = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    normal = centered * lax.rsqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True) + eps)
    return x, (normal * (1 + scale) + shift).astype(x.dtype)
