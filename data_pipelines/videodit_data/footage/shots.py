"""Shot detection: cuts and fades of footage, but not flashes, found in one pass over the frames.

The detectors are PySceneDetect's. What they report is checked against the pictures on both sides: what comes back to
the same picture at once (a flash, a dropped frame, lightning) is no boundary. The dark or white part of a fade is a
shot of its own, so that no clip starts or ends in it. Dissolves from picture to picture are not found.
"""

import itertools
from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, HistogramDetector, ThresholdDetector

from videodit_data.footage.analysis_result import Shot

DETECTORS = {
    "adaptive": (AdaptiveDetector, "adaptive_threshold"),
    "content": (ContentDetector, "threshold"),
    "histogram": (HistogramDetector, "threshold"),
}
_PAD = 2  # frames repeated at both ends: the window of the adaptive detector on each side
_TINY = (32, 18)  # width and height at which the pictures on both sides are compared
_BLACK, _WHITE = 24, 231  # a picture has faded when 99 % of its levels are beyond
_ALIKE = 0.85  # correlation of pictures that differ in brightness and a little motion
_EPSILON = 1e-3  # seconds: containers round times
_RATE = 25.0  # PySceneDetect's times need one; every length here is in frames


@dataclass(frozen=True)
class ShotConfig:
    """Settings of shot detection.

    Attributes:
        detector: "adaptive" (change of hue, saturation and brightness against that of the frames around), "content"
            (the same against a fixed threshold), "histogram" (of brightness), or "none".
        threshold: the detector's; PySceneDetect's default if None.
        fades: whether fades to black and to white are boundaries as well.
        flash_seconds: what comes back to the same picture within this time is no boundary.
        pixels: to about how many pixels frames are scaled down for this.
    """

    detector: str = "adaptive"
    threshold: float | int | None = None
    fades: bool = True
    flash_seconds: float | int = 0.25
    pixels: int = 128 * 228

    def __post_init__(self) -> None:
        if self.detector not in (*DETECTORS, "none"):
            raise ValueError(f"A shot detector is one of {', '.join(DETECTORS)} or none, not {self.detector!r}.")
        if self.flash_seconds < 0 or self.pixels < 1024:
            raise ValueError("Finding shots needs flash_seconds of 0 or more and at least 1024 pixels.")


@dataclass(frozen=True)
class _Candidate:
    """Boundaries before frames `cuts`, the last one shown at `seconds`, and tiny pictures from before the first."""

    cuts: tuple[int, ...]
    seconds: float
    before: list[Float32[np.ndarray, " N"]]
    fade: bool


class ShotFinder:
    """A detector that takes frames in order and returns the shots at the end; it buffers tiny pictures briefly."""

    def __init__(self, config: ShotConfig):
        self._window, self._frame_count, self._frames_processed = config.flash_seconds, 0, 0
        self._last: np.ndarray | None = None
        self._cuts: set[int] = set()
        self._recent: deque[tuple[int, float, np.ndarray]] = deque()
        self._waiting: list[_Candidate] = []
        self._content = None
        if config.detector != "none":
            make, name = DETECTORS[config.detector]
            self._content = make(min_scene_len=0, **({} if config.threshold is None else {name: config.threshold}))
        ceiling, options = (
            ThresholdDetector.Method.CEILING,
            {"min_scene_len": 0, "fade_bias": -1, "add_final_scene": True},
        )
        black, white = ThresholdDetector(_BLACK, **options), ThresholdDetector(_WHITE, **options, method=ceiling)
        self._fades = [_Fade(black, 0.99), _Fade(white, 0.01)] if config.fades else []

    def add_frame(self, picture: UInt8[np.ndarray, "Y X 3"], seconds: float) -> None:
        """Take in the next frame (RGB, scaled down) and its presentation time."""
        tiny = cv2.resize(picture, _TINY, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        self._recent.append((self._frame_count, seconds, tiny))
        self._last = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(1 if self._frame_count else 1 + _PAD):
            self._process_frame(self._last)
        self._frame_count += 1
        self._settle(seconds)
        while len(self._recent) > 1 + _PAD and self._recent[0][1] < self._recent[-1 - _PAD][1] - self._window:
            self._recent.popleft()

    def shots(self) -> tuple[Shot, ...]:
        """Return the shots from the first frame to the last, each frame in one; to be called once, at the end."""
        if self._last is not None:
            for _ in range(_PAD):
                self._process_frame(self._last)
            for fade in self._fades:
                self._cuts.update(cut.frame_num - _PAD for cut in fade.detector.post_process(self._time()))
            self._settle(float("inf"))
        edges = sorted({0, self._frame_count, *(cut for cut in self._cuts if 0 < cut < self._frame_count)})
        return tuple(Shot(start, stop) for start, stop in itertools.pairwise(edges))

    def _time(self) -> FrameTimecode:
        return FrameTimecode(self._frames_processed, _RATE)

    def _process_frame(self, bgr: UInt8[np.ndarray, "Y X 3"]) -> None:
        if self._content is not None:
            for boundary in self._content.process_frame(self._time(), bgr):
                cut = boundary.frame_num - _PAD
                seconds = next((time for number, time, _ in self._recent if number == cut), self._recent[-1][1])
                before = [
                    tiny
                    for number, time, tiny in self._recent
                    if number < cut and time >= seconds - self._window - _EPSILON
                ]
                self._waiting.append(_Candidate((cut,), seconds, before, fade=False))
        number, seconds, _ = self._recent[-1]
        counts = np.cumsum(np.bincount(bgr[::2, ::2].ravel(), minlength=256))
        for fade in self._fades:
            level = np.full((1, 1, 3), np.searchsorted(counts, fade.share * counts[-1]), np.uint8)
            for boundary in fade.detector.process_frame(self._time(), level):
                short = fade.before if seconds - fade.seconds < self._window else []
                self._waiting.append(_Candidate((boundary.frame_num - _PAD, number), seconds, short, fade=True))
            dark = fade.detector.last_fade["type"] == "out"
            if dark and not fade.dark:
                fade.before, fade.seconds = [tiny for _, _, tiny in self._recent][:-1], seconds
            fade.dark = dark
        self._frames_processed += 1

    def _settle(self, now: float) -> None:
        """Decide on the boundaries that have enough later frames."""
        for candidate in [
            candidate for candidate in self._waiting if candidate.seconds + self._window <= now + _EPSILON
        ]:
            self._waiting.remove(candidate)
            until = candidate.seconds + self._window + _EPSILON
            after = [tiny for number, time, tiny in self._recent if number >= candidate.cuts[-1] and time <= until]
            if not (candidate.before and after and _same(candidate.before, after, candidate.fade)):
                self._cuts.update(candidate.cuts)


@dataclass
class _Fade:
    """A detector of fades; during a dark (or white) stretch, also its start and a picture from before it."""

    detector: ThresholdDetector
    share: float
    dark: bool = False
    before: list[Float32[np.ndarray, " N"]] = field(default_factory=list)
    seconds: float = 0.0


def _same(before: list[Float32[np.ndarray, " N"]], after: list[Float32[np.ndarray, " N"]], fade: bool) -> bool:
    """Return whether pictures on both sides of a boundary belong to one scene.

    They do if a pair is less than half as far apart as the two pictures at the boundary; around a fade, if a pair is
    equal up to brightness.
    """
    one, two = np.stack(before), np.stack(after)
    if not fade:
        distances = np.abs(one[:, None] - two[None]).mean(axis=-1)
        return bool(distances.min() < 0.5 * distances[-1, 0])
    one, two = (pictures - pictures.mean(axis=1, keepdims=True) for pictures in (one, two))
    sizes = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(two, axis=1)
    return bool((one @ two.T > _ALIKE * sizes).any())
