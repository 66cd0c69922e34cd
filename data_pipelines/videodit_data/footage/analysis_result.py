"""The analysis of a source of footage, also as plain JSON: the contract between analysis and pipeline."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from videodit_data.boundary.typed_json import Count, Size, convert
from videodit_data.video import VideoInfo
from videodit_data.video.isolate import check_info

VERSION = 2  # of the analysis: raise it with every change of results, which invalidates caches
MEASURES: Mapping[str, str] = {
    "motion": "mean speed of the picture's points (optical flow), in shorter sides of the picture a second",
    "sharpness": "variance of the Laplacian at one size of picture, in squared grey levels of 255 (median of looks)",
    "luminance": "mean level, 0 (black) to 1 (white)",
    "contrast": "standard deviation of the levels, 0 to 0.5",
    "bars": "share of the picture in bars at its sides that stay black, 0 to 1",
    "text": "share of the picture under lines of text that stay in place, 0 to 1 (median of looks)",
    "static": "share of the time in which nothing changes, 0 to 1",
    "slideshow": "share of the time in stills joined by short jumps, 0 to 1",
    "loudness": "integrated loudness in LUFS (EBU R128); None without sound and for silence",
}


@dataclass(frozen=True)
class Shot:
    """Frames `start` to `stop` (excluded) of a source, without a cut between them."""

    start: Count
    stop: Count


@dataclass(frozen=True)
class Clip:
    """A part of a shot that may become a clip.

    Attributes:
        start: first frame in the source. frames: how many.
        start_seconds: presentation time of the first frame after the source's first.
        measures: what was measured, by its name in MEASURES; None where there is nothing to measure.
        fingerprint: perceptual hashes of evenly spaced frames, 64 bits each.
    """

    start: Count
    frames: Size
    start_seconds: float
    measures: Mapping[str, float | None]
    fingerprint: tuple[Annotated[int, Meta(ge=0)], ...]

    def __post_init__(self) -> None:
        if any(frame_hash >= 2**64 for frame_hash in self.fingerprint):
            raise ValueError("fingerprint holds a number of more than 64 bits")


@dataclass(frozen=True)
class Analysis:
    """A source of footage, decoded once.

    short: shots, or rests of shots, that are too short for any clip.
    notes: what could not be found out and why, a sentence each.
    """

    info: VideoInfo
    shots: tuple[Shot, ...]
    clips: tuple[Clip, ...]
    short: tuple[Shot, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for `from_json`."""
        return dataclasses.asdict(self)

    def __post_init__(self) -> None:
        check_info(self.info)

    @staticmethod
    def from_json(values: Mapping[str, Any], name: str = "an analysis") -> "Analysis":
        """Invert `to_json`; `name` is for errors."""
        return convert(values, Analysis, name)
