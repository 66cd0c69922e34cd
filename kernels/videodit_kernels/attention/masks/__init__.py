"""Attention masks: small descriptions of the keys that a query may attend to, one file per rule."""

from videodit_kernels.attention.masks.base import FAR as FAR
from videodit_kernels.attention.masks.base import Both as Both
from videodit_kernels.attention.masks.base import Labels as Labels
from videodit_kernels.attention.masks.base import Mask as Mask
from videodit_kernels.attention.masks.base import Rows as Rows
from videodit_kernels.attention.masks.base import Rule as Rule
from videodit_kernels.attention.masks.base import SequenceOffsets as SequenceOffsets
from videodit_kernels.attention.masks.base import Span as Span
from videodit_kernels.attention.masks.base import allows as allows
from videodit_kernels.attention.masks.base import materialize as materialize
from videodit_kernels.attention.masks.base import materialize_rule as materialize_rule
from videodit_kernels.attention.masks.base import parse_mask as parse_mask
from videodit_kernels.attention.masks.base import slice_labels as slice_labels
from videodit_kernels.attention.masks.factorized import SpatialOnly as SpatialOnly
from videodit_kernels.attention.masks.factorized import TemporalOnly as TemporalOnly
from videodit_kernels.attention.masks.frame_causal import FrameCausal as FrameCausal
from videodit_kernels.attention.masks.rearranged import Padded as Padded
from videodit_kernels.attention.masks.rearranged import TileOrdered as TileOrdered
from videodit_kernels.attention.masks.windows import LocalWindow as LocalWindow
from videodit_kernels.attention.masks.windows import SlidingTiles as SlidingTiles
