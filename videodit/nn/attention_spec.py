"""Which tokens of a clip attend to each other: a mask for each block, from a configuration and the grid of tokens.

A new variant: its rule in `videodit_kernels.attention.masks`; here its name, its options and what builds its mask; or a
function elsewhere, named as `MODULE:FUNCTION`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated

from videodit_kernels import attention as kernels
from videodit_kernels.attention.tiles import Grid

from videodit.ranges import Count, Range, Size, check_ranges
from videodit.registry import Registry

Mask = kernels.Mask
PositiveGrid = Annotated[Grid, Range(1, 2**16)]
FACTORIZED = "factorized"


MaskBuilder = Callable[["AttentionSpec", Grid], Mask | None]
ATTENTION_KINDS: Registry[MaskBuilder] = Registry("kind of attention")
"""From a specification and a clip's grid of tokens to the mask of a block; None for all pairs."""


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """Self-attention of a model's blocks: all pairs of a clip's tokens, or those that a mask allows.

    Attributes:
        kind: of all blocks, or `MODULE:FUNCTION` of your own (`ATTENTION_KINDS`). "full": all pairs. "frame_causal": a
            latent frame attends to itself and to those before it. "spatial": within a frame; "temporal": along time at
            one (y, x); "factorized": the two in turn, block by block. "local_window": to the neighborhood of a token;
            "sliding_tiles": to the tiles around its own.
        pattern: kinds of consecutive blocks, repeated over the depth, in place of one kind for all: `("frame_causal",
            "frame_causal", "frame_causal", "full")` has every fourth block full.
        window: of "frame_causal", latent frames that a frame attends to, itself included; None for all before it.
        sinks: of "frame_causal", first frames that all later ones attend to besides (StreamingLLM, arXiv:2309.17453).
        tile: tokens (t, y, x) of a tile. Where there are tiles or local windows, tokens are put in tile order, so that
            the kernels skip whole blocks.
        local_window: of "local_window", tokens (t, y, x) of the neighbourhood (arXiv:2204.07143).
        tile_window: of "sliding_tiles", tiles (t, y, x) that a token attends to (arXiv:2502.04507).
    """

    kind: str = "full"
    pattern: tuple[str, ...] = ()
    window: Size | None = None
    sinks: Count = 0
    tile: PositiveGrid = (2, 8, 8)
    local_window: PositiveGrid = (3, 9, 9)
    tile_window: PositiveGrid = (3, 3, 3)

    def __post_init__(self):
        for kind in self.kinds:
            ATTENTION_KINDS.get(kind)
        check_ranges(self)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of consecutive blocks, which repeat over the depth."""
        if self.pattern:
            return self.pattern
        return ("spatial", "temporal") if self.kind == FACTORIZED else (self.kind,)

    @property
    def is_full(self) -> bool:
        """Whether every token of a clip attends to every other in every block."""
        return set(self.kinds) == {"full"}

    @property
    def order(self) -> Grid | None:
        """The tile in whose order the model holds its tokens; None for raster order."""
        return self.tile if {"local_window", "sliding_tiles"} & set(self.kinds) else None

    def build_masks(self, grid: Grid) -> tuple[Mask | None, ...]:
        """Build the masks of consecutive blocks, for a clip's tokens in the model's order; None where there is no mask.

        Args:
            grid: tokens of a clip along (t, y, x).
        """
        return tuple(ATTENTION_KINDS.get(kind)(self, grid) for kind in self.kinds)

    def count_pairs(self, grid: Grid, depth: int) -> int:
        """Count the pairs of tokens that attend to each other, summed over `depth` blocks."""
        return _count_pairs(self, grid, depth)

    def reorder(self, mask: Mask, grid: Grid) -> Mask:
        """Return a mask of tokens in raster order for the model's order."""
        return mask if self.order is None else kernels.TileOrdered(mask, grid, self.order)


def describe_packing_obstacle(spec: AttentionSpec) -> str | None:
    """Return why packed sequences cannot have this attention; None if they can."""
    if spec.is_full:
        return None
    kinds = ", ".join(sorted(set(spec.kinds) - {"full"}))
    return (
        f"packed sequences have full attention only: a mask ({kinds}) is built when tracing, from the one grid of a "
        "batch's clips, and the clips of a packed sequence have grids of their own; use buckets"
    )


@ATTENTION_KINDS.register("full")
def build_full(spec: AttentionSpec, grid: Grid) -> None:
    """Every token attends to every other."""
    return None


@ATTENTION_KINDS.register("frame_causal")
def build_frame_causal(spec: AttentionSpec, grid: Grid) -> Mask:
    """A frame attends to itself and to those before it."""
    return spec.reorder(kernels.FrameCausal(math.prod(grid[1:]), window=spec.window, sinks=spec.sinks), grid)


@ATTENTION_KINDS.register("spatial")
def build_spatial(spec: AttentionSpec, grid: Grid) -> Mask:
    """A token attends to its own frame."""
    return spec.reorder(kernels.SpatialOnly(math.prod(grid[1:])), grid)


@ATTENTION_KINDS.register("temporal")
def build_temporal(spec: AttentionSpec, grid: Grid) -> Mask:
    """A token attends to those at its own (y, x)."""
    return spec.reorder(kernels.TemporalOnly(math.prod(grid[1:])), grid)


@ATTENTION_KINDS.register("local_window")
def build_local_window(spec: AttentionSpec, grid: Grid) -> Mask:
    """A token attends to its neighborhood."""
    return kernels.LocalWindow(grid, spec.tile, spec.local_window)


@ATTENTION_KINDS.register("sliding_tiles")
def build_sliding_tiles(spec: AttentionSpec, grid: Grid) -> Mask:
    """A token attends to the tiles around its own."""
    return kernels.SlidingTiles(grid, spec.tile, spec.tile_window)


@functools.lru_cache
def _count_pairs(spec: AttentionSpec, grid: Grid, depth: int) -> int:
    tokens = math.prod(grid)
    pairs = [tokens**2 if mask is None else mask.count_pairs(tokens, tokens) for mask in spec.build_masks(grid)]
    return sum(pairs[block % len(pairs)] for block in range(depth))
