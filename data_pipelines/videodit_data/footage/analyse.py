"""Analysis of a video file's shots and clips in one pass; only a few numbers are kept per frame.

Every frame is scaled down at once to a small picture (for shots, change, motion and fingerprints), and some to a larger
one as well (`MeasureConfig.looks`). An hour of 25 frames a second leaves 12 MB, whatever their size.
"""

import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import av
import cv2
import numpy as np
import scenedetect
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from videodit_data import video
from videodit_data.footage import fingerprint, measure, still
from videodit_data.footage.analysis_result import VERSION, Analysis, Clip, Shot
from videodit_data.footage.clips import ClipConfig, divide
from videodit_data.footage.loudness import Loudness
from videodit_data.footage.shots import ShotConfig, ShotFinder
from videodit_data.footage.text import Strokes
from videodit_data.video.opening import MOST_PIXELS

# All that the result depends on, apart from the configuration.
MADE_BY = (VERSION, *(f"{each.__name__} {each.__version__}" for each in (av, cv2, scenedetect)))
_LEAST, _MOST = measure.LEAST_SIDE, 2**14  # pixels of a side: optical flow needs some, OpenCV counts in 16 bits
_EPSILON = 1e-3  # seconds: containers round times


@dataclass(frozen=True)
class MeasureConfig:
    """Settings of the measures of clips, which `analysis_result.MEASURES` explains.

    Attributes:
        looks: pictures a second that are measured.
        pixels: to about how many pixels these are scaled down; sharpness belongs to this size.
        step: seconds, at least, between two pictures whose motion and change is measured.
        text_seconds: least duration of unchanged strokes that count as text.
    """

    looks: float | int = 4
    pixels: int = 360 * 640
    step: float | int = 0.1
    text_seconds: float | int = 1.0

    def __post_init__(self) -> None:
        if not (self.looks > 0 and self.pixels >= 4096 and self.step > 0 and self.text_seconds > 0):
            raise ValueError("Measuring needs looks, step and text_seconds above 0 and at least 4096 pixels.")


@dataclass(frozen=True)
class AnalysisConfig:
    """Settings of the search for shots, their division into clips, and the measures."""

    shots: ShotConfig = field(default_factory=ShotConfig)
    clips: ClipConfig = field(default_factory=ClipConfig)
    measures: MeasureConfig = field(default_factory=MeasureConfig)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for `from_json`."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "AnalysisConfig":
        """Invert `to_json`."""
        return AnalysisConfig(
            ShotConfig(**values["shots"]), ClipConfig(**values["clips"]), MeasureConfig(**values["measures"])
        )


def analyze(
    path: str | os.PathLike[str], config: AnalysisConfig, *, name: str = "", most_pixels: int = MOST_PIXELS
) -> Analysis:
    """Find the shots and clips of a video file and measure them, decoding it once; `name` is its name in errors.

    VideoError for all that `video.verify` refuses: what is not a video, holds no frames, is damaged or cut off, or has
    frames of more than `most_pixels`.
    """
    watch, sound = _Watch(config), Loudness()
    info = video.verify(path, name=name, most_pixels=most_pixels, on_frame=watch.add_frame, on_packet=sound.add_packet)
    times = np.sort(np.frombuffer(watch.times))
    if info.container == "avi" or np.isnan(times).any():
        times = np.arange(info.frames) / info.fps
    shots = watch.finder.shots()
    seconds = (np.append(times, times[-1] + 1 / info.fps) - times[0]).tolist()
    parts, short = divide(shots, seconds, config.clips)
    clips = []
    for part in parts:
        loudness = sound.integrated(float(times[0]) + seconds[part.start], float(times[0]) + seconds[part.stop])
        measures = watch.measures(part, seconds) | {"loudness": loudness}
        hashes = tuple(watch.hashes[at] for at in fingerprint.sample_indices(part.start, part.stop - part.start))
        clips.append(Clip(part.start, part.stop - part.start, seconds[part.start], measures, hashes))
    return Analysis(info, shots, tuple(clips), short, (sound.trouble,) if sound.trouble else ())


@dataclass(frozen=True, slots=True)
class _Look:
    """Measures of one frame, and of strokes that have stayed since frame `since`."""

    at: int
    since: int
    luminance: float
    contrast: float
    sharpness: float
    bars: measure.Bars
    text: float | None


@dataclass(frozen=True, slots=True)
class _Step:
    """Change and motion from frame `start` to frame `stop`."""

    start: int
    stop: int
    change: float
    motion: float


class _Watch:
    """A collector of per-frame measures, from which clips are measured once their frames are known."""

    def __init__(self, config: AnalysisConfig):
        self.finder, self._config = ShotFinder(config.shots), config.measures
        self._small_pixels = config.shots.pixels
        self.times, self.hashes = array("d"), array("Q")  # seconds of the stream, NaN where a frame has no time
        self._looks: list[_Look] = []
        self._steps: list[_Step] = []
        self._scalers = VideoReformatter(), VideoReformatter()
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._clock, self._next_look = 0.0, -math.inf
        self._before: tuple[int, float, np.ndarray] | None = None
        self._strokes = Strokes(config.measures.text_seconds)
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def add_frame(self, frame: av.VideoFrame, size: tuple[int, int]) -> None:
        """Take in the next frame, displayed at `size` (height, width)."""
        if self._sizes is None:
            self._sizes = _fit(size, self._small_pixels), _fit(size, self._config.pixels)
        at, time = len(self.times), frame.time
        self.times.append(math.nan if time is None else time)
        # The clock advances even if the timestamps do not.
        self._clock = self._clock + 0.04 if time is None or (at and time <= self._clock) else time
        small = video.scale_frame(frame, self._sizes[0], self._scalers[0])
        self.finder.add_frame(small, self._clock)
        luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        self.hashes.append(fingerprint.frame_hash(luma))
        self._step(at, luma)
        if self._clock >= self._next_look - _EPSILON:
            self._next_look = max(self._next_look, self._clock - 1 / self._config.looks) + 1 / self._config.looks
            self._look(at, cv2.cvtColor(video.scale_frame(frame, self._sizes[1], self._scalers[1]), cv2.COLOR_RGB2GRAY))

    def _step(self, at: int, luma: UInt8[np.ndarray, "Y X"]) -> None:
        if self._before is not None:
            start, clock, before = self._before
            if (passed := self._clock - clock) < self._config.step - _EPSILON:
                return
            change = measure.change(before, luma)
            speed = measure.motion(before, luma, passed, self._flow) if change > 0 else 0.0
            self._steps.append(_Step(start, at, change, speed))
        self._before = at, self._clock, luma

    def _look(self, at: int, luma: UInt8[np.ndarray, "Y X"]) -> None:
        since, text = self._strokes.add_picture(luma, at, self._clock)
        self._looks.append(
            _Look(at, since, *measure.brightness(luma), measure.sharpness(luma), measure.bars(luma), text)
        )

    def measures(self, part: Shot, seconds: Sequence[float]) -> dict[str, float | None]:
        """Return the measures of frames `start` to `stop`; `seconds` are the frames' presentation times."""
        looks = _between(self._looks, part, lambda look: look.at)
        texts = [look.text for look in looks if look.since >= part.start and look.text is not None]
        steps = [step for step in _between(self._steps, part, lambda step: step.start) if step.stop < part.stop]
        changes = [step.change for step in steps]
        lengths = [seconds[step.stop] - seconds[step.start] for step in steps]
        return {
            "motion": _mean([step.motion for step in steps]),
            "sharpness": _median([look.sharpness for look in looks]),
            "luminance": _mean([look.luminance for look in looks]),
            "contrast": _mean([look.contrast for look in looks]),
            "bars": measure.lasting_bars([look.bars for look in looks]).share if looks else None,
            "text": _median(texts),
            "static": still.static_share(changes, lengths),
            "slideshow": still.slideshow(changes, lengths),
        }


def _between(items: list[Any], part: Shot, frame: Callable[[Any], int]) -> list[Any]:
    """Return the items, sorted by frame, whose frame is in a part."""
    return items[bisect_left(items, part.start, key=frame) : bisect_left(items, part.stop, key=frame)]


def _fit(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return a size with about `pixels` at most, of the same aspect except where a side would be too short or long."""
    scale = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    height, width = (min(max(_LEAST, round(scale * side)), _MOST) for side in size)
    return height, width


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
