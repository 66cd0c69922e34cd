"""Attention over video tokens: one call, `attention`, several implementations, masks that are small descriptions."""

from videodit_kernels.attention.api import attention as attention
from videodit_kernels.attention.api import gradients as gradients
from videodit_kernels.attention.masks import Both as Both
from videodit_kernels.attention.masks import FrameCausal as FrameCausal
from videodit_kernels.attention.masks import LocalWindow as LocalWindow
from videodit_kernels.attention.masks import Mask as Mask
from videodit_kernels.attention.masks import Place as Place
from videodit_kernels.attention.masks import SlidingTiles as SlidingTiles
from videodit_kernels.attention.partial import merge as merge
from videodit_kernels.attention.tiles import from_tiles as from_tiles
from videodit_kernels.attention.tiles import to_tiles as to_tiles
