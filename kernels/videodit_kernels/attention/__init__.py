"""Attention over video tokens: `attention`, its implementations, and masks whose size does not grow with the tokens."""

from videodit_kernels.attention.api import attention as attention
from videodit_kernels.attention.api import gradients as gradients
from videodit_kernels.attention.masks import Both as Both
from videodit_kernels.attention.masks import FrameCausal as FrameCausal
from videodit_kernels.attention.masks import LocalWindow as LocalWindow
from videodit_kernels.attention.masks import Mask as Mask
from videodit_kernels.attention.masks import Padded as Padded
from videodit_kernels.attention.masks import SequenceOffsets as SequenceOffsets
from videodit_kernels.attention.masks import SlidingTiles as SlidingTiles
from videodit_kernels.attention.masks import SpatialOnly as SpatialOnly
from videodit_kernels.attention.masks import TemporalOnly as TemporalOnly
from videodit_kernels.attention.masks import TileOrdered as TileOrdered
from videodit_kernels.attention.masks import materialize as materialize
from videodit_kernels.attention.partial import merge as merge
from videodit_kernels.attention.tiles import from_tiles as from_tiles
from videodit_kernels.attention.tiles import to_tiles as to_tiles
