"""Attention to the neighbourhood in (t, y, x), of tokens or of tiles."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from videodit_kernels.attention.masks.base import Labels, Mask, Rule, Span
from videodit_kernels.attention.tiles import Grid, coordinates, tile_counts


@dataclass(frozen=True)
class _Window(Mask, parsed=False):
    """A window of fixed size around every query; it moves inwards at the borders, so that it always fits.

    Args:
        grid: tokens (t, h, w) of the video, in tile order (`tiles.to_tiles`).
        tile: the tile (t, h, w) of that order.
        window: size (t, h, w) of the window.
    """

    grid: Grid
    tile: Grid
    window: Grid

    def __post_init__(self):
        for name in ("grid", "tile", "window"):
            sizes = getattr(self, name)
            if len(sizes) != 3 or min(sizes) < 1:
                raise ValueError(f"{type(self).__name__}.{name} is (t, h, w), each at least 1; got {sizes}")

    @property
    def rule(self) -> Rule:
        return tuple(Span(dim, 0, size - 1) for dim, size in enumerate(self.window))

    @property
    @abc.abstractmethod
    def _positions(self) -> tuple[np.ndarray, Grid]:
        """Return the position [3, T] of every token, and the number of positions along each dim."""

    @cached_property
    def _labels(self) -> Labels:
        positions, counts = self._positions
        size = np.minimum(self.window, counts)[:, None]
        first = np.clip(positions - size // 2, 0, np.array(counts)[:, None] - size)
        return first.astype(np.int32), positions.astype(np.int32)

    def labels(self, q_len: int, kv_len: int) -> Labels:
        tokens = math.prod(self.grid)
        if (q_len, kv_len) != (tokens, tokens):
            raise ValueError(
                f"{type(self).__name__} over a grid {self.grid} is for {tokens} tokens, "
                f"got {q_len} queries and {kv_len} keys"
            )
        return self._labels


class LocalWindow(_Window):
    """A window of `window` tokens (t, h, w) around every query (neighbourhood attention, arXiv:2204.07143)."""

    @property
    def _positions(self) -> tuple[np.ndarray, Grid]:
        return coordinates(self.grid, self.tile), self.grid

    def count_pairs(self, q_len: int, kv_len: int) -> int:
        return q_len * math.prod(min(size, most) for size, most in zip(self.window, self.grid, strict=True))


class SlidingTiles(_Window):
    """A window of `window` tiles (t, h, w) around every query's tile (sliding tile attention, arXiv:2502.04507)."""

    @property
    def _positions(self) -> tuple[np.ndarray, Grid]:
        return coordinates(self.grid, self.tile) // np.array(self.tile)[:, None], tile_counts(self.grid, self.tile)
