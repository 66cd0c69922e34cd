"""Attention within a frame, and along time at one position: factorized attention (ViViT, arXiv:2103.15691)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videodit_kernels.attention.masks.base import Labels, Mask, Rule, Span


@dataclass(frozen=True)
class _SameLabel(Mask, parsed=False):
    """Every token attends to those of its own label.

    Args:
        frame: tokens per frame; tokens are in raster order (t, y, x).
    """

    frame: int

    def __post_init__(self):
        if self.frame < 1:
            raise ValueError(f"{type(self).__name__}.frame is at least 1, got {self.frame}")

    @property
    def rule(self) -> Rule:
        return (Span(0, 0, 0),)

    def labels(self, q_len: int, kv_len: int) -> Labels:
        return self._label(q_len)[None], self._label(kv_len)[None]

    def _label(self, length: int) -> np.ndarray:
        raise NotImplementedError


class SpatialOnly(_SameLabel):
    """A token attends to the tokens of its own frame."""

    def _label(self, length: int) -> np.ndarray:
        return np.arange(length, dtype=np.int32) // self.frame


class TemporalOnly(_SameLabel):
    """A token attends to the tokens at its own (y, x) in every frame."""

    def _label(self, length: int) -> np.ndarray:
        return np.arange(length, dtype=np.int32) % self.frame
