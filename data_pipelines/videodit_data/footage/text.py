"""Text laid over the picture: captions, titles, logos. Found by strokes that stay in place, with OpenCV alone."""

from collections import deque

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

_KERNEL = np.ones((3, 3), np.uint8)


class Strokes:
    """Shown pictures in turn, it tells the share of text among the strokes that were there all along."""

    def __init__(self, seconds: float):
        self._seconds, self._seen = seconds, deque()

    def see(self, luma: UInt8[np.ndarray, "Y X"], at: int, seconds: float) -> tuple[int, float | None]:
        """The frame since which strokes lasted, and the share of text; None until enough time has passed."""
        self._seen.append((at, seconds, edges(luma)))
        while len(self._seen) > 1 and self._seen[1][1] <= seconds - self._seconds + 1e-3:
            self._seen.popleft()
        since, begin, _ = self._seen[0]
        if seconds - begin < self._seconds - 1e-3:
            return since, None
        return since, float(text_mask(np.minimum.reduce([seen for _, _, seen in self._seen])).mean())


def edges(luma: UInt8[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X"]:
    """How much levels differ around each pixel (the morphological gradient)."""
    return cv2.morphologyEx(luma, cv2.MORPH_GRADIENT, _KERNEL)


def text_mask(lasting: UInt8[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """Where lines of text are, by edges that lasted."""
    height = lasting.shape[0]
    strokes = (lasting > 60).astype(np.uint8)
    reach = max(3, round(0.03 * height))
    lines = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, reach), np.uint8))
    lines = cv2.morphologyEx(lines, cv2.MORPH_OPEN, _KERNEL)
    count, _, stats, _ = cv2.connectedComponentsWithStats(lines)
    mask = np.zeros(lasting.shape, bool)
    for x, y, w, h, area in stats[1:count]:
        if 0.015 * height <= h <= 0.15 * height and w >= 2 * h and area >= 0.5 * w * h:
            mask[y : y + h, x : x + w] = True
    return mask
