"""Attention as the formulas say, with the mask written out: the reference for every other implementation."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from videodit_kernels.attention.masks import Mask, SequenceOffsets, materialize_rule, slice_labels


def build_mask(
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    q_len: int,
    kv_len: int,
    offsets: SequenceOffsets | None = None,
) -> Array | None:
    """Return the allowed pairs of query and key, bool [B or 1, 1, T, S]; None where all pairs are allowed."""
    parts = []
    if mask is not None:
        labels = mask.labels(*((q_len, kv_len) if offsets is None else (offsets.q_len, offsets.kv_len)))
        # As arrays: in numpy, the mask written out would be a constant of the program.
        q_labels, kv_labels = map(jnp.asarray, slice_labels(labels, offsets, q_len, kv_len))
        parts.append(materialize_rule(mask.rule, q_labels, kv_labels)[None, None])
    if segments is not None:
        parts.append((segments[0][:, :, None] == segments[1][:, None, :])[:, None])
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] & parts[1]


def softmax(
    q: Array,
    k: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
) -> tuple[Array, Array]:
    """Return weights [B, N, T, S], zeros where a query has no key, and their log-sum-exp [B, T, N], -inf there."""
    k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
    logits = scale * jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=jnp.float32, precision=_precision(q))
    allowed = build_mask(mask, segments, q.shape[1], k.shape[1], offsets)
    if allowed is not None:
        logits = jnp.where(allowed, logits, -jnp.inf)
    top = jnp.max(logits, axis=-1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    weights = jnp.exp(logits - top)
    total = weights.sum(-1, keepdims=True)
    some = total > 0
    safe = jnp.where(some, total, 1.0)
    lse = jnp.where(some, jnp.log(safe) + top, -jnp.inf)
    return weights / safe, lse[..., 0].swapaxes(1, 2)


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
) -> tuple[Array, Array]:
    """Return `softmax(scale q k') v` [B, T, N, H] in the type of `q`, and the log-sum-exp [B, T, N] in float32.

    Logits, softmax and sums are float32; the products read their operands as they come, the weights in the type of `v`.
    """
    weights, lse = softmax(q, k, mask=mask, segments=segments, scale=scale, offsets=offsets)
    v = jnp.repeat(v, q.shape[2] // v.shape[2], axis=2)
    out = jnp.einsum(
        "bnts,bsnh->btnh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32, precision=_precision(v)
    )
    return out.astype(q.dtype), lse


def gradients(
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    lse: Array,
    delta: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients of q, k and v, float32, through part of the keys (FlashAttention, arXiv:2205.14135)."""
    heads = k.shape[2]
    k, v = (jnp.repeat(x, q.shape[2] // heads, axis=2) for x in (k, v))
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32, precision=_precision(q))
    lse = jnp.where(jnp.isfinite(lse), lse, jnp.inf)
    lse, delta = (x.swapaxes(1, 2)[..., None] for x in (lse, delta))
    weights = jnp.exp(scale * dot("btnh,bsnh->bnts", q, k) - lse)
    allowed = build_mask(mask, segments, q.shape[1], k.shape[1], offsets)
    if allowed is not None:
        weights = jnp.where(allowed, weights, 0.0)
    d_logits = scale * weights * (dot("btnh,bsnh->bnts", d_out, v) - delta)
    weights, d_logits = weights.astype(q.dtype), d_logits.astype(q.dtype)
    d_kv = dot("bnts,btnh->bsnh", d_logits, q), dot("bnts,btnh->bsnh", weights, d_out)
    d_kv = (x.reshape(*x.shape[:2], heads, -1, x.shape[-1]).sum(3) for x in d_kv)
    return dot("bnts,bsnh->btnh", d_logits, k), *d_kv


def _precision(x: Array) -> jax.lax.Precision | None:
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
