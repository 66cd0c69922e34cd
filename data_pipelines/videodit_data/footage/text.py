"""Detection of overlaid text (captions, titles, logos) by strokes that stay unchanged, with OpenCV alone."""

from collections import deque

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

_STROKE, _STRONG = 60, 90  # levels at the edge of a stroke, at least, and in the mean of a line of text
_LOWEST, _TALLEST, _GAP = 0.02, 0.15, 0.03  # of the picture's height: a line of text, the space between words
_KERNEL = np.ones((3, 3), np.uint8)


class Strokes:
    """A detector that takes pictures in order and returns the share of text among the strokes that persisted."""

    def __init__(self, seconds: float):
        self._seconds, self._recent = seconds, deque()

    def add_picture(self, luma: UInt8[np.ndarray, "Y X"], at: int, seconds: float) -> tuple[int, float | None]:
        """Take in a picture; returns the frame since which strokes lasted, and the share of text (None at first)."""
        self._recent.append((at, seconds, edges(luma)))
        while len(self._recent) > 1 and self._recent[1][1] <= seconds - self._seconds + 1e-3:
            self._recent.popleft()
        since, start_seconds, _ = self._recent[0]
        if seconds - start_seconds < self._seconds - 1e-3:
            return since, None
        return since, float(
            text_mask(np.minimum.reduce([picture_edges for _, _, picture_edges in self._recent])).mean()
        )


def edges(luma: UInt8[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X"]:
    """Return the range of levels around each pixel (the morphological gradient)."""
    return cv2.morphologyEx(luma, cv2.MORPH_GRADIENT, _KERNEL)


def text_mask(lasting: UInt8[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """Return the mask of lines of text from edges that lasted: strong strokes close to each other, in rows."""
    height = lasting.shape[0]
    strokes = (lasting > _STROKE).astype(np.uint8)
    strokes[_tall(strokes, _TALLEST * height)] = 0
    lines = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, max(3, round(_GAP * height))), np.uint8))
    lines = cv2.morphologyEx(lines, cv2.MORPH_OPEN, _KERNEL)
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines)
    mask = np.zeros(lasting.shape, bool)
    for x, y, w, h, area in stats[1:count]:
        box = np.s_[y : y + h, x : x + w]
        if not (_LOWEST * height <= h <= _TALLEST * height and w >= 2.5 * h and area >= 0.5 * w * h):
            continue
        if lasting[box][strokes[box] > 0].mean() >= _STRONG:
            mask[box] = True
    return mask


def _tall(strokes: UInt8[np.ndarray, "Y X"], most: float) -> Bool[np.ndarray, "Y X"]:
    """Return the mask of strokes that belong to things higher than a line of text."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(strokes)
    high = stats[:, cv2.CC_STAT_HEIGHT] > most
    high[0] = False
    return high[labels]
