"""Tile order: the tokens of a (T, H, W) grid so sorted that those of one tile (t, h, w) follow one another.

Tokens that are near in space and time are then near in the sequence, and a local mask leaves whole blocks empty.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

Grid = tuple[int, int, int]


def tile_counts(grid: Grid, tile: Grid) -> Grid:
    """Count the tiles along each dim; the last of a dim is smaller where the tile does not divide the grid."""
    t, h, w = (-(-size // step) for size, step in zip(grid, tile, strict=True))
    return t, h, w


@functools.lru_cache(maxsize=16)
def coordinates(grid: Grid, tile: Grid) -> np.ndarray:
    """Return (t, h, w) of every token in tile order, int32 [3, T * H * W]."""
    raster = np.indices(grid, dtype=np.int32).reshape(3, -1)
    return raster[:, tile_order(grid, tile)]


@functools.lru_cache(maxsize=16)
def tile_order(grid: Grid, tile: Grid) -> np.ndarray:
    """Return the raster index of every token in tile order: tiles, and tokens within each, in raster order."""
    raster = np.indices(grid, dtype=np.int32).reshape(3, -1)
    # lexsort's last key is the first to sort by.
    return np.lexsort([*(raster % np.array(tile)[:, None])[::-1], *(raster // np.array(tile)[:, None])[::-1]])


def to_tiles(x: Array, grid: Grid, tile: Grid, dim: int = 1) -> Array:
    """Reorder tokens from raster order into tile order along `dim`."""
    return jnp.take(x, tile_order(grid, tile), axis=dim, unique_indices=True)


def from_tiles(x: Array, grid: Grid, tile: Grid, dim: int = 1) -> Array:
    """Reorder tokens from tile order into raster order along `dim`."""
    return jnp.take(x, np.argsort(tile_order(grid, tile)), axis=dim, unique_indices=True)
