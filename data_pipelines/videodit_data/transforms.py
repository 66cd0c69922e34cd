"""Pure functions between a decoded clip and a training example; all randomness comes in as a generator.

Resizing is not here: `video.decode` scales while it converts a frame to RGB. Measured on 1280 x 720 H.264, that costs
0.6 ms a frame to 64 x 114, against 12 ms for converting first and resizing the RGB picture with PIL's box filter.
"""

import math

import numpy as np
from jaxtyping import Float, Int

_TIE = 1e-6  # seconds: a target this close to the middle of two frames takes the earlier one, whatever the rounding


def nearest(source_seconds: Float[np.ndarray, " N"], target_seconds: Float[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """Index of the source time nearest to each target time; source times ascend, ties go to the earlier."""
    middles = (source_seconds[1:] + source_seconds[:-1]) / 2
    return np.searchsorted(middles + _TIE, target_seconds, side="left")


def covers(frames: int, source_fps: float, count: int, fps: float) -> bool:
    """Whether `frames` at `source_fps` reach far enough for `count` frames at `fps`, by nearest timestamp.

    The last wanted time may lie at most half a source frame after the last source frame.
    """
    return (count - 1) / fps <= (frames - 0.5) / source_fps + _TIE


def start_seconds(frames: int, source_fps: float, count: int, fps: float, rng: np.random.Generator | None) -> float:
    """Where a window of `count` frames at `fps` starts: the beginning, or any source frame that leaves room for it.

    Starting on a source frame keeps the window free of skipped or doubled frames when one rate divides the other.
    """
    places = starts(frames, source_fps, count, fps)
    return 0.0 if rng is None or places == 1 else int(rng.integers(places)) / source_fps


def starts(frames: int, source_fps: float, count: int, fps: float) -> int:
    """How many source frames, from the first on, a window of `count` frames at `fps` may start on."""
    room = frames - 1 - (count - 1) / fps * source_fps
    return 1 if room < 1 else math.floor(room + _TIE) + 1


def cover_size(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int]:
    """The smallest (height, width) of the same aspect, to a pixel, that covers the target."""
    scale = max(target_height / height, target_width / width)
    return max(target_height, round(height * scale)), max(target_width, round(width * scale))


def choose_crop(size: tuple[int, int], target: tuple[int, int], rng: np.random.Generator | None) -> tuple[int, int]:
    """(top, left) of a crop of `target` = (height, width) pixels: the centre, or a uniformly random place.

    ValueError when the frame is smaller.
    """
    spare = size[0] - target[0], size[1] - target[1]
    if min(spare) < 0:
        raise ValueError(f"Cannot crop {target[0]} x {target[1]} pixels out of {size[0]} x {size[1]}.")
    if rng is None:
        return spare[0] // 2, spare[1] // 2
    return int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))


def choose_caption(captions: tuple[str, ...], dropout: float, rng: np.random.Generator | None) -> str:
    """One caption of several, or "" with probability `dropout`; without a generator, always the first."""
    if rng is None:
        return captions[0]
    chosen, kept = int(rng.integers(len(captions))), rng.random() >= dropout
    return captions[chosen] if kept else ""
