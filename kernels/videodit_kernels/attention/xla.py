"""XLA's own attention, `jax.nn.dot_product_attention`, where no kernel serves."""

import jax
import jax.numpy as jnp
from jax import Array

from videodit_kernels.attention.masks import Mask, SequenceOffsets
from videodit_kernels.attention.reference import build_mask, softmax


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
    """As `reference.attention`, by `jax.nn.dot_product_attention`; the mask is written out.

    Its own residual is rounded and has no gradient, so that the log-sum-exp, where it is requested, is computed here.
    """
    allowed = build_mask(mask, segments, q.shape[1], k.shape[1], offsets)
    out = jax.nn.dot_product_attention(q, k, v, mask=allowed, scale=scale, implementation="xla")
    if allowed is not None:
        out = jnp.where(allowed.any(-1).swapaxes(1, 2)[..., None], out, 0)
    lse = softmax(q, k, mask=mask, segments=segments, scale=scale, offsets=offsets)[1] if return_lse else None
    return out, lse
