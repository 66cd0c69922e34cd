"""cuDNN's attention on NVIDIA GPUs, through `jax.nn.dot_product_attention`."""

import jax
import jax.numpy as jnp
from jax import Array

from videodit_kernels.attention.masks import Mask, SequenceOffsets

# The largest head dim of cuDNN's kernels.
MAX_HEAD_DIM = 128


def find_obstacle(q: Array, mask: Mask | None, segments: tuple[Array, Array] | None) -> str | None:
    """Return why cuDNN cannot serve a call; None if it can."""
    if mask is not None or segments is not None:
        return "has no masks and no segments: a mask written out is slow there"
    if q.dtype != jnp.bfloat16:
        return f"takes bfloat16, got {q.dtype}"
    if q.shape[-1] % 8 or q.shape[-1] > MAX_HEAD_DIM:
        return f"takes head dims that are multiples of 8 up to {MAX_HEAD_DIM}, got {q.shape[-1]}"
    return None


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
) -> tuple[Array, None]:
    """Compute `reference.attention`, without a log-sum-exp: cuDNN's has no gradient.

    Raises:
        ValueError: where cuDNN cannot serve.
    """
    reason = find_obstacle(q, mask, segments)
    if reason:
        raise ValueError(f"implementation 'gpu' {reason}; 'xla' serves the call")
    return jax.nn.dot_product_attention(q, k, v, scale=scale, implementation="cudnn"), None
