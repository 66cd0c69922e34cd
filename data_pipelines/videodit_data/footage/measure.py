"""Measures of single pictures of a source: grey, of one size, taken a few times a second.

Every function is pure. Sizes are fractions of the picture and times are in seconds, so that the measures hold for any
size and rate of the source, as far as it is not smaller than the looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

cv2.setNumThreads(1)  # the result of optical flow depends on the number of threads

_BAR = 20  # grey level up to which a bar may be lit by noise
LEAST_SIDE = 16  # pixels of a picture whose motion is measured
_LOW = (32, 80)  # height below which OpenCV's flow reads outside of pictures that are wider than this
_QUIET = 0.995  # share of a bar's pixels that are no brighter


@dataclass(frozen=True)
class Bars:
    """Black bars at the four sides, as shares of the height and the width."""

    top: float
    bottom: float
    left: float
    right: float

    @property
    def share(self) -> float:
        """Return the bars' share of the picture."""
        return 1 - max(0.0, 1 - self.top - self.bottom) * max(0.0, 1 - self.left - self.right)


def brightness(luma: UInt8[np.ndarray, "Y X"]) -> tuple[float, float]:
    """Return luminance, the mean level (0 black to 1 white), and contrast, its standard deviation (0 to 0.5)."""
    mean, deviation = cv2.meanStdDev(luma)
    return float(mean[0, 0]) / 255, float(deviation[0, 0]) / 255


def sharpness(luma: UInt8[np.ndarray, "Y X"]) -> float:
    """Return the variance of the Laplacian, in squared gray levels (0 to 255): 0 if flat, below about 50 if blurred.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000. It belongs to the size of `luma`.
    """
    return float(cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_32F))[1][0, 0] ** 2)


def motion(
    before: UInt8[np.ndarray, "Y X"], after: UInt8[np.ndarray, "Y X"], seconds: float, flow: cv2.DISOpticalFlow
) -> float:
    """Return the mean speed of the picture's points, in shorter sides of the picture per second.

    It is DIS optical flow from one picture to the other, `seconds` apart. Above about 1.5 per second it is understated.

    Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. ValueError for a side below LEAST_SIDE.
    """
    height, width = before.shape
    if min(height, width) < LEAST_SIDE:
        raise ValueError(f"Motion needs pictures of {LEAST_SIDE} pixels a side or more, not {height} x {width}.")
    if height < _LOW[0] and width >= _LOW[1]:
        before, after = np.ascontiguousarray(before.T), np.ascontiguousarray(after.T)
    moved = flow.calc(before, after, None)
    return float(np.hypot(moved[..., 0], moved[..., 1]).mean()) / (min(before.shape) * seconds)


def bars(luma: UInt8[np.ndarray, "Y X"]) -> Bars:
    """Return the black bars of one picture: rows and columns at the sides with nothing brighter than noise."""
    top, bottom = _dark_ends(luma)
    inner = luma[top : luma.shape[0] - bottom]
    left, right = _dark_ends(inner.T) if inner.size else (luma.shape[1], 0)
    return Bars(top / luma.shape[0], bottom / luma.shape[0], left / luma.shape[1], right / luma.shape[1])


def _dark_ends(luma: UInt8[np.ndarray, "Y X"]) -> tuple[int, int]:
    """Return the number of dark rows at the start and at the end; if all are dark, all count to the start."""
    bright = np.flatnonzero((luma > _BAR).mean(axis=1) > 1 - _QUIET)
    return (int(bright[0]), int(len(luma) - 1 - bright[-1])) if len(bright) else (len(luma), 0)


def lasting_bars(frame_bars: Sequence[Bars]) -> Bars:
    """Return the bars that are black in all of several pictures."""
    return Bars(*(min(getattr(one, side) for one in frame_bars) for side in ("top", "bottom", "left", "right")))


def change(before: UInt8[np.ndarray, "Y X"], after: UInt8[np.ndarray, "Y X"]) -> float:
    """Return the largest change of level, of 255, of any spot of about a twentieth of the picture's height.

    Differences are averaged over the spot, which reduces the noise of a camera or of encoding.
    """
    difference = np.subtract(after, before, dtype=np.float32)
    return float(np.abs(cv2.GaussianBlur(difference, (0, 0), max(1.0, min(before.shape) / 40))).max())
