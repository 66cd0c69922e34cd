"""Clip windows: the parts of a clip that are encoded."""

from dataclasses import dataclass

import numpy as np

from videodit_data.reading.transforms import cover_size
from videodit_data.storage.dataset import ClipSize
from videodit_data.video.resampling import count_starts


@dataclass(frozen=True)
class Window:
    """Frames from `start` seconds on, and pixels from `top` and `left` on of frames scaled to `height` x `width`."""

    start: float
    top: int
    left: int
    height: int
    width: int


def choose_windows(clip: ClipSize, shape: ClipSize, count: int, seed: int) -> list[Window]:
    """Return `count` different windows of a clip, or all if there are fewer.

    The first is the clip's beginning and centre, the others are drawn by the seed.

    Args:
        clip: size of the clip.
        shape: size of a window.
    """
    (frames, source_fps, *size), (window_frames, fps, *target) = clip, shape
    scaled = cover_size(*size, *target)
    spare = (have - take for have, take in zip(scaled, target, strict=True))
    choices = count_starts(frames, source_fps, window_frames, fps), *(pixels + 1 for pixels in spare)
    total = int(np.prod(choices, dtype=np.int64))
    first = int(np.ravel_multi_index((0, (choices[1] - 1) // 2, (choices[2] - 1) // 2), choices))
    others = np.random.default_rng(seed).choice(total - 1, min(count, total) - 1, replace=False) if total > 1 else []
    indices = [first, *(int(other) + (other >= first) for other in others)]
    offsets = (tuple(map(int, np.unravel_index(index, choices))) for index in indices)
    return [Window(start / source_fps, top, left, *scaled) for start, top, left in offsets]
