"""The analysis of a source of footage, also as plain JSON: the contract between analysis and pipeline."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videodit_data.video import VideoInfo

VERSION = 1  # of the analysis: raise it with every change of results, which invalidates caches
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

    start: int
    stop: int


@dataclass(frozen=True)
class Clip:
    """A part of a shot that may become a clip.

    Attributes:
        start: first frame in the source. frames: how many.
        start_seconds: presentation time of the first frame after the source's first.
        measures: what was measured, by its name in MEASURES; None where there is nothing to measure.
        fingerprint: perceptual hashes of evenly spaced frames, 64 bits each.
    """

    start: int
    frames: int
    start_seconds: float
    measures: Mapping[str, float | None]
    fingerprint: tuple[int, ...]


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

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Analysis":
        """Invert `to_json`."""
        clips = (Clip(**clip | {"fingerprint": tuple(clip["fingerprint"])}) for clip in values["clips"])
        shots, short = (tuple(Shot(**shot) for shot in values[name]) for name in ("shots", "short"))
        return Analysis(VideoInfo(**values["info"]), shots, tuple(clips), short, tuple(values.get("notes", ())))
