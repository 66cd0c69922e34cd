"""Temporal resampling: selects the frames of a clip for another frame rate, by nearest timestamp."""

import math

import numpy as np
from jaxtyping import Float, Int

_TIE = 1e-6  # seconds: a target this close to the middle of two frames takes the earlier one, whatever the rounding


def nearest(source_seconds: Float[np.ndarray, " N"], target_seconds: Float[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """Return the index of the source time nearest to each target time; source times ascend, ties go to the earlier."""
    middles = (source_seconds[1:] + source_seconds[:-1]) / 2
    return np.searchsorted(middles + _TIE, target_seconds, side="left")


def covers(frames: int, source_fps: float, count: int, fps: float) -> bool:
    """Return whether `frames` at `source_fps` suffice for `count` frames at `fps`, by nearest timestamp.

    The last target time may lie at most half a source frame after the last source frame.
    """
    return (count - 1) / fps <= (frames - 0.5) / source_fps + _TIE


def choose_start(frames: int, source_fps: float, count: int, fps: float, rng: np.random.Generator | None) -> float:
    """Return the start of a window of `count` frames at `fps`, in seconds.

    It is the beginning, or with a generator any source frame that leaves room for the window. Starting on a source
    frame keeps the window free of skipped or doubled frames when one rate divides the other.
    """
    starts = count_starts(frames, source_fps, count, fps)
    return 0.0 if rng is None or starts == 1 else int(rng.integers(starts)) / source_fps


def count_starts(frames: int, source_fps: float, count: int, fps: float) -> int:
    """Return the number of source frames, from the first on, that a window of `count` frames at `fps` may start on."""
    room = frames - 1 - (count - 1) / fps * source_fps
    return 1 if room < 1 else math.floor(room + _TIE) + 1
