"""The memory of batches that no one holds any more, for the next ones.

Fresh memory costs: the system has to find and clear every page. Of 480 lines at half the side, 6 to 19% more clips a
CPU-second were read so; of whole frames as many as before.
"""

import math
import mmap
import weakref
from collections import deque

import numpy as np

from videodit_data.reading.batch import ArraySpec


class BufferPool:
    """Arrays of any content; what they lie in is used again once they and all views of them are gone.

    keep: pieces not in use that are kept, the latest.
    """

    def __init__(self, keep: int):
        self._free: deque[mmap.mmap] = deque(maxlen=keep)

    def array(self, rows: int, spec: ArraySpec) -> np.ndarray:
        """An array of so many rows."""
        count = rows * math.prod(spec.shape)
        piece = self._piece(max(1, count * spec.dtype.itemsize))
        # The base of every view is this array, as NumPy goes back to the first array and no further.
        whole = np.frombuffer(piece, spec.dtype, count)
        weakref.finalize(whole, self._free.append, piece).atexit = False
        return whole.reshape(rows, *spec.shape)

    def _piece(self, size: int) -> mmap.mmap:
        for _ in range(len(self._free)):
            piece = self._free.popleft()
            if size <= len(piece) <= 2 * size:
                return piece
            self._free.append(piece)
        piece = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            piece.madvise(mmap.MADV_HUGEPAGE)
        return piece
