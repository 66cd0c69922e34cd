"""Attention to the past of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videodit_kernels.attention.masks.base import FAR, Labels, Mask, Rule, Span


@dataclass(frozen=True)
class FrameCausal(Mask):
    """A frame attends to itself and to the frames before it.

    Args:
        frame: tokens per frame.
        window: how many frames a frame attends to, itself included; all by default.
        sinks: how many of the first frames every later frame attends to besides (StreamingLLM, arXiv:2309.17453).
        start: the frame that the first query belongs to, where the keys begin earlier than the queries.

    The last frame may be cut short.
    """

    frame: int
    window: int | None = None
    sinks: int = 0
    start: int = 0

    def __post_init__(self):
        for name, least in (("frame", 1), ("window", 1), ("sinks", 0), ("start", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"FrameCausal.{name} is at least {least}, got {value}")

    @property
    def rule(self) -> Rule:
        causal = Span(0, -FAR, 0)
        return (causal,) if self.window is None else (causal, Span(1, 1 - self.window, FAR))

    def labels(self, q_len: int, kv_len: int) -> Labels:
        q = self.start + np.arange(q_len, dtype=np.int32) // self.frame
        kv = np.arange(kv_len, dtype=np.int32) // self.frame
        if self.window is None:
            return q[None], kv[None]
        # For the window's rule, the sinks get the label of the last query, so that no query is too late for them.
        return np.stack([q, q]), np.stack([kv, np.where(kv < self.sinks, np.maximum(kv, q[-1]), kv)])
