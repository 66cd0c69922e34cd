"""`jax.nn.dot_product_attention`: XLA's own attention, for whatever has no kernel."""

import jax
import jax.numpy as jnp
from jax import Array

from videodit_kernels.attention.masks import Mask, Place
from videodit_kernels.attention.reference import allowed, softmax


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    place: Place | None = None,
    return_lse: bool = True,
) -> tuple[Array, Array | None]:
    """As `reference.attention`, by `jax.nn.dot_product_attention`; the mask is written out.

    Its own residual is rounded and has no gradient, so that the log-sum-exp, where it is asked for, is made here.
    """
    may = allowed(mask, segments, q.shape[1], k.shape[1], place)
    out = jax.nn.dot_product_attention(q, k, v, mask=may, scale=scale, implementation="xla")
    if may is not None:
        out = jnp.where(may.any(-1).swapaxes(1, 2)[..., None], out, 0)
    lse = softmax(q, k, mask=mask, segments=segments, scale=scale, place=place)[1] if return_lse else None
    return out, lse
