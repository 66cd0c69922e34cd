"""Division of shots into clips of bounded length."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from videodit_data.footage.analysis_result import Shot

_EPSILON = 1e-6  # seconds: sums of frames' times are not exact


@dataclass(frozen=True)
class ClipConfig:
    """Lengths of clips in seconds: at most `max_seconds`, at least `min_seconds`, to within one frame."""

    min_seconds: float | int = 2.0
    max_seconds: float | int = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"Clips need 0 < min_seconds <= max_seconds, not {self.min_seconds} and {self.max_seconds}."
            )


def divide(
    shots: Sequence[Shot], seconds: Sequence[float], config: ClipConfig
) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    """Return parts of shots that are long enough for clips, and parts that are too short; each frame is in one part.

    A shot becomes the fewest even parts that are not too long. Where these would be too short, it becomes parts as long
    as possible and a rest. `seconds` are the frames' presentation times, and at its end that of the last frame's end.
    """
    clips: list[Shot] = []
    short: list[Shot] = []
    for shot in shots:
        parts = _even(shot, seconds, config)
        if parts is None:
            parts = _longest(shot, seconds, config)
        for part in parts:
            fits = _long_enough(part, seconds, config) and not _too_long(part, seconds, config)
            (clips if fits else short).append(part)
    return tuple(clips), tuple(short)


def _even(shot: Shot, seconds: Sequence[float], config: ClipConfig) -> list[Shot] | None:
    """Return the fewest parts of even length of which none is too long; None if one is too short then."""
    start_seconds, length = seconds[shot.start], seconds[shot.stop] - seconds[shot.start]
    count = max(1, -int(-(length - _EPSILON) // config.max_seconds))
    while count <= shot.stop - shot.start:
        edges = [_nearest(seconds, start_seconds + part * length / count, shot) for part in range(count + 1)]
        parts = [Shot(start, stop) for start, stop in itertools.pairwise(edges)]
        if not all(_long_enough(part, seconds, config) for part in parts):
            return None
        if not any(_too_long(part, seconds, config) for part in parts):
            return parts
        count += 1
    return None


def _long_enough(part: Shot, seconds: Sequence[float], config: ClipConfig) -> bool:
    length, frames = seconds[part.stop] - seconds[part.start], part.stop - part.start
    return frames > 0 and length + length / frames > config.min_seconds + _EPSILON


def _too_long(part: Shot, seconds: Sequence[float], config: ClipConfig) -> bool:
    return seconds[part.stop] - seconds[part.start] > config.max_seconds + _EPSILON


def _longest(shot: Shot, seconds: Sequence[float], config: ClipConfig) -> list[Shot]:
    """Return consecutive parts of maximal length, and the rest; a frame shown for longer is a part by itself."""
    parts, at = [], shot.start
    while at < shot.stop:
        stop = bisect_right(seconds, seconds[at] + config.max_seconds + _EPSILON) - 1
        stop = min(max(stop, at + 1), shot.stop)
        parts.append(Shot(at, stop))
        at = stop
    return parts


def _nearest(seconds: Sequence[float], time: float, shot: Shot) -> int:
    """Return the frame of the shot, or its end, that is shown nearest to a time."""
    after = min(max(bisect_left(seconds, time - _EPSILON), shot.start), shot.stop)
    before = max(after - 1, shot.start)
    return before if time - seconds[before] < seconds[after] - time else after
