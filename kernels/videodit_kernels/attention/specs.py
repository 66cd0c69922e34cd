"""Shapes and masks over which every implementation is tested against the reference."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from videodit_kernels.attention.masks import FrameCausal, LocalWindow, Mask, SlidingTiles, SpatialOnly, TemporalOnly


@dataclass(frozen=True)
class Spec:
    """One problem: lengths, heads, head dim, mask, and how many segments its tokens fall into (None: no ids)."""

    name: str
    q_len: int
    kv_len: int
    heads: int = 1
    kv_heads: int = 1
    dim: int = 64
    mask: Mask | None = None
    segments: int | None = None
    batch: int = 1

    def arrays(self, dtype=jnp.float32, seed: int = 0, gain: float = 1.0) -> tuple[Array, Array, Array]:
        """Draw normal q [B, T, N, H] times `gain`, k and v [B, S, M, H]."""
        keys = jax.random.split(jax.random.key(seed), 3)
        kv = self.batch, self.kv_len, self.kv_heads, self.dim
        q = jax.random.normal(keys[0], (self.batch, self.q_len, self.heads, self.dim), dtype)
        return q * jnp.asarray(gain, dtype), *(jax.random.normal(key, kv, dtype) for key in keys[1:])

    def segment_ids(self, seed: int = 0) -> tuple[Array, Array] | None:
        """Draw ids [B, T] and [B, S] in rising order, as packing leaves them; different in every sequence."""
        if self.segments is None:
            return None
        keys = jax.random.split(jax.random.key(seed + 1), 2)
        sizes = (self.batch, self.q_len), (self.batch, self.kv_len)
        q, kv = (jnp.sort(jax.random.randint(*at, 0, self.segments), -1) for at in zip(keys, sizes, strict=True))
        return (q, q) if self.q_len == self.kv_len else (q, kv)


_GRID, _TILE = (4, 12, 15), (2, 4, 5)

SMALL: tuple[Spec, ...] = (
    Spec("full", 512, 512, dim=128),
    Spec("odd", 391, 391, dim=96),
    Spec("grouped", 256, 256, heads=4, kv_heads=2, dim=80, batch=2),
    Spec("cross", 700, 77, heads=2, kv_heads=2),
    Spec("packed", 600, 600, segments=4, batch=2),
    Spec("packed cross", 520, 200, heads=2, kv_heads=1, segments=3, batch=2),
    Spec("frames", 500, 500, mask=FrameCausal(60)),
    Spec("streaming", 120, 500, mask=FrameCausal(60, window=3, sinks=1, start=6)),
    Spec("tiles", 720, 720, mask=SlidingTiles(_GRID, _TILE, (1, 3, 3))),
    Spec("local", 720, 720, dim=128, mask=LocalWindow(_GRID, _TILE, (3, 5, 7))),
    Spec("frames of tiles", 720, 720, mask=SlidingTiles(_GRID, _TILE, (2, 3, 1)) & FrameCausal(180, window=2)),
    Spec("spatial", 400, 400, mask=SpatialOnly(90)),
    Spec("temporal", 300, 420, heads=2, mask=TemporalOnly(70)),
    Spec("packed frames", 600, 600, mask=FrameCausal(100, window=2), segments=3, batch=2),
)
