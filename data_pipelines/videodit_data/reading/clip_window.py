"""Which parts of a clip are taken, where several are: all different, the first being what is taken where one is."""

from dataclasses import dataclass

import numpy as np

from videodit_data.reading.transforms import cover_size
from videodit_data.storage.dataset import ClipSize
from videodit_data.video.resampling import starts


@dataclass(frozen=True)
class Window:
    """Frames from `start` seconds on, and pixels from `top` and `left` on of frames scaled to `height` x `width`."""

    start: float
    top: int
    left: int
    height: int
    width: int


def windows(clip: ClipSize, shape: ClipSize, count: int, seed: int) -> list[Window]:
    """`count` windows of a clip, or as many as there are: its beginning and centre, then others drawn by the seed.

    Args:
        clip: frames, frames a second, height and width. shape: the same of what is taken.
    """
    (frames, source_fps, *size), (wanted, fps, *target) = clip, shape
    scaled = cover_size(*size, *target)
    spare = (have - take for have, take in zip(scaled, target, strict=True))
    places = starts(frames, source_fps, wanted, fps), *(pixels + 1 for pixels in spare)
    total = int(np.prod(places, dtype=np.int64))
    first = int(np.ravel_multi_index((0, (places[1] - 1) // 2, (places[2] - 1) // 2), places))
    others = np.random.default_rng(seed).choice(total - 1, min(count, total) - 1, replace=False) if total > 1 else []
    chosen = [first, *(int(other) + (other >= first) for other in others)]
    found = (tuple(map(int, np.unravel_index(number, places))) for number in chosen)
    return [Window(start / source_fps, top, left, *scaled) for start, top, left in found]
