"""Cutting of parts of long footage to files of their own, encoded so that training reads them fast."""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from videodit_data import video

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class Recode:
    """Settings of clips' encoding (H.264).

    The defaults are for random reads: 16 frames from anywhere in real footage of 256p and 480p decoded 1.8 times as
    fast as at a gop of 32 without tune, and 2.7 times as fast as at x264's own 250, for 25% and 57% more bytes.

    Attributes:
        crf: quality, 0 (lossless) to 51.
        gop: frames from one keyframe to the next at most: a random seek decodes half of them in the mean.
        tune: "fastdecode" leaves out CABAC and the deblocking filter; None does not.
        short_side: pixels of the shorter side of what is larger; never scaled up. None keeps the size.
        preset: x264's, from ultrafast to veryslow: the time that encoding takes against bytes.
    """

    crf: int = 18
    gop: int = 16
    tune: str | None = "fastdecode"
    short_side: int | None = None
    preset: str = "medium"

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51 or self.gop < 1:
            raise ValueError(f"Encoding needs a crf of 0 to 51 and a gop of 1 or more, not {self.crf} and {self.gop}.")
        if self.tune not in ("fastdecode", None):
            raise ValueError(f"The tune of a recoding is fastdecode or None, not {self.tune!r}.")
        if self.preset not in PRESETS:
            raise ValueError(f"A preset is one of {', '.join(PRESETS)}, not {self.preset!r}.")
        if self.short_side is not None and (self.short_side < 2 or self.short_side % 2):
            raise ValueError(f"A short_side is an even number of pixels, not {self.short_side}.")


def cut(source: video.Source, start: int, frames: int, recode: Recode, *, name: str = "") -> bytes:
    """Encode frames `start` to `start + frames` as an mp4 of their own; the same bytes at every call.

    One frame is in memory at a time. Frames are written as they are displayed, without an odd last row or column, and
    keep their distance in time: at the source's rate where it is constant. VideoError when the frames are not there, or
    cannot be decoded or encoded.
    """
    where = _where(source, name)
    seconds = where.timeline.seconds[start : start + frames]
    with closing(video.stream(source, where, start, frames, name=name)) as decoded:
        first = next(decoded)
        shape, size = _sizes(video.displayed_size(first[1], where.pixel_aspect), recode.short_side)
        steady = np.abs((seconds - seconds[0]) * where.fps - np.arange(frames)).max() < 0.25
        options = {"crf": str(recode.crf), "g": str(recode.gop), "preset": recode.preset}
        options |= {"tune": recode.tune} if recode.tune else {}
        pictures = _pictures(chain([first], decoded), shape, size)
        return video.write_mp4(
            None, pictures, size, where.fps, options=options, seconds=None if steady else seconds.tolist()
        )


def _where(source: video.Source, name: str) -> video.Index:
    if isinstance(source, bytes):
        return video.index(source, name=name)
    state = os.stat(source) if os.path.exists(source) else None
    return (
        video.index(source, name=name)
        if state is None
        else _indexed(os.fspath(source), state.st_size, state.st_mtime_ns, name)
    )


@lru_cache(maxsize=8)
def _indexed(path: str, size: int, changed: int, name: str) -> video.Index:
    """Return the cached index of a file, so that long footage is not read through for each clip."""
    return video.index(path, name=name)


def _sizes(displayed: tuple[int, int], short_side: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size that frames are scaled to, and the even size that remains of it."""
    scale = 1.0 if short_side is None else min(1.0, short_side / min(displayed))
    if scale < 1:
        scaled = tuple(2 * max(1, round(scale * side / 2)) for side in displayed)
        return scaled, scaled
    least = max(2, displayed[0]), max(2, displayed[1])
    return least, (least[0] // 2 * 2, least[1] // 2 * 2)


def _pictures(
    decoded: Iterable[tuple[float, av.VideoFrame]], shape: tuple[int, int], size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, "Y X 3"]]:
    reformatter = VideoReformatter()
    for _, frame in decoded:
        yield np.ascontiguousarray(video.scale_frame(frame, shape, reformatter)[: size[0], : size[1]])
