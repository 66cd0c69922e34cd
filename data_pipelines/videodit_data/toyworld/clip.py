"""Clips: frames, captions and truth, each a pure function of a seed, a level, an index and a format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from videodit_data.toyworld.captions import write
from videodit_data.toyworld.render import render
from videodit_data.toyworld.scene import Scene, frame_times, room_of
from videodit_data.toyworld.scene_sampler import sample_scene
from videodit_data.toyworld.truth import truth_of
from videodit_data.toyworld.world import LEVELS, get_level

WORDINGS = 4


@dataclass(frozen=True)
class Clip:
    """A rendered clip: its frames, several captions of it and its ground truth (see `truth_of`)."""

    frames: UInt8[np.ndarray, "T Y X 3"]
    captions: list[str]
    truth: dict[str, object]


@dataclass(frozen=True)
class Format:
    """The format of clips: pixels, number of frames and frames per second. `ValueError` where it is invalid."""

    height: int = 64
    width: int = 64
    frames: int = 9
    fps: float = 8.0

    def __post_init__(self) -> None:
        room_of(self.height, self.width)
        if self.frames < 1:
            raise ValueError(f"A toyworld clip needs at least one frame, not {self.frames}.")
        if not self.fps > 0:
            raise ValueError(f"A toyworld clip needs a positive frame rate, not {self.fps}.")


def scene_of(seed: int, level: str, index: int, *, height: int, width: int) -> Scene:
    """Return the scene of one clip; of the frame's size only the aspect ratio counts."""
    rng = _generator(seed, level, index, 0)
    return sample_scene(rng, get_level(level), room_of(height, width))


def make_clip(seed: int, level: str, index: int, format: Format = Format()) -> Clip:
    """Make clip number `index` of an endless stream; `ValueError` for an unknown level."""
    scene = scene_of(seed, level, index, height=format.height, width=format.width)
    truth = truth_of(scene, format.frames, format.fps)
    captions = write(truth, _generator(seed, level, index, 1), WORDINGS)
    frames = render(scene, frame_times(format.frames), format.height, format.width)
    return Clip(frames, [caption.text for caption in captions], truth)


def clips(
    seed: int,
    level: str,
    *,
    start: int = 0,
    stop: int | None = None,
    format: Format = Format(),
) -> Iterator[Clip]:
    """Yield clips from `start` up to, not including, `stop` (endless if None)."""
    index = start
    while stop is None or index < stop:
        yield make_clip(seed, level, index, format)
        index += 1


def _generator(seed: int, level: str, index: int, stream: int) -> np.random.Generator:
    get_level(level)
    return np.random.Generator(np.random.PCG64([seed, list(LEVELS).index(level), index, stream]))
