"""Masks of sequences whose tokens are reordered or padded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from videodit_kernels.attention.masks.base import Labels, Mask, Rule
from videodit_kernels.attention.tiles import Grid, tile_order


@dataclass(frozen=True)
class TileOrdered(Mask, parsed=False):
    """A mask of tokens in raster order, for the same tokens in tile order (`tiles.to_tiles`).

    Args:
        mask: of tokens in raster order.
        grid: tokens (t, h, w) of the video.
        tile: the tile (t, h, w) of the order.
    """

    mask: Mask
    grid: Grid
    tile: Grid

    @property
    def rule(self) -> Rule:
        return self.mask.rule

    def labels(self, q_len: int, kv_len: int) -> Labels:
        tokens = math.prod(self.grid)
        if (q_len, kv_len) != (tokens, tokens):
            raise ValueError(
                f"tile order over a grid {self.grid} is for {tokens} tokens, got {q_len} queries and {kv_len} keys"
            )
        q, kv = self.mask.labels(q_len, kv_len)
        order = tile_order(self.grid, self.tile)
        return q[:, order], kv[:, order]

    def count_pairs(self, q_len: int, kv_len: int) -> int:
        return self.mask.count_pairs(q_len, kv_len)


@dataclass(frozen=True)
class Padded(Mask, parsed=False):
    """A mask of self-attention whose sequence is padded at its end; segment ids have to exclude the padding.

    Args:
        mask: of the tokens without padding.
        length: tokens without padding.
    """

    mask: Mask
    length: int

    @property
    def rule(self) -> Rule:
        return self.mask.rule

    def labels(self, q_len: int, kv_len: int) -> Labels:
        q, kv = self.mask.labels(self.length, self.length)
        return (
            np.pad(q, ((0, 0), (0, q_len - self.length)), mode="edge"),
            np.pad(kv, ((0, 0), (0, kv_len - self.length)), mode="edge"),
        )
