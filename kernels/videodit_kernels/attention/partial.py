"""Merging of attention over parts of the keys, as ring attention does chunk by chunk (arXiv:2310.01889)."""

import jax.numpy as jnp
from jax import Array

Partial = tuple[Array, Array]


def merge(*parts: Partial) -> Partial:
    """Merge attention over disjoint parts of the keys, each with `return_lse=True`, into attention over all keys.

    Args:
        parts: output [B, T, N, H] and float32 log-sum-exp [B, T, N] over a part of the keys each.

    Returns the same pair for all parts. Plain arithmetic, so that gradients flow to every part's both results.
    """
    lse = jnp.stack([part[1] for part in parts])
    top = jnp.max(lse, axis=0)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    weights = jnp.exp(lse - top)
    total = weights.sum(0)
    some = total > 0
    shares = weights / jnp.where(some, total, 1.0)
    out = sum(share[..., None] * part[0].astype(jnp.float32) for share, part in zip(shares, parts, strict=True))
    return out.astype(parts[0][0].dtype), jnp.where(some, jnp.log(jnp.where(some, total, 1.0)) + top, -jnp.inf)
