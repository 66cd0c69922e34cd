"""XLA's own attention, `jax.nn.dot_product_attention`, where no kernel serves."""

import jax
import jax.numpy as jnp
from jax import Array

from videodit_kernels.attention.masks import Mask, SequenceOffsets
from videodit_kernels.attention.reference import build_mask, softmax

# The largest mask to write out, at one byte per pair.
MAX_MASK_BYTES = 2 * 2**30


def find_mask_obstacle(q_len: int, kv_len: int) -> str | None:
    """Return why a mask for these lengths is too large to be written out; None if it is not."""
    size = q_len * kv_len
    if size <= MAX_MASK_BYTES:
        return None
    return (
        f"writes masks out, and one for {q_len} queries and {kv_len} keys has {size / 2**30:.1f} GiB, more than "
        f"{MAX_MASK_BYTES / 2**30:.0f}: take fewer tokens, full attention, or a TPU, whose kernel writes no mask out"
    )


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
    return_lse: bool = True,
) -> tuple[Array, Array | None]:
    """Compute `reference.attention` by `jax.nn.dot_product_attention`; the mask is written out.

    Its own residual is rounded and has no gradient, so that the log-sum-exp, where it is requested, is computed here.

    Raises:
        ValueError: for a mask that is too large to be written out.
    """
    obstacle = None if mask is None else find_mask_obstacle(q.shape[1], k.shape[1])
    if obstacle:
        raise ValueError(f"implementation 'xla' {obstacle}")
    allowed = build_mask(mask, segments, q.shape[1], k.shape[1], offsets)
    out = jax.nn.dot_product_attention(q, k, v, mask=allowed, scale=scale, implementation="xla")
    if allowed is not None:
        out = jnp.where(allowed.any(-1).swapaxes(1, 2)[..., None], out, 0)
    lse = softmax(q, k, mask=mask, segments=segments, scale=scale, offsets=offsets)[1] if return_lse else None
    return out, lse
