"""A pool of buffers: memory of batches that are gone is used again for new ones.

Fresh memory costs: the system has to find and clear every page. Of 480 lines at half the height and
width, 6 to 19% more clips per CPU-second were read so; of full-size frames as many as before.
"""

import math
import mmap
import weakref
from collections import deque

import numpy as np

from videodit_data.reading.batch import ArraySpec


class BufferPool:
    """Uninitialised arrays whose memory is used again once they and all views of them are gone.

    Args:
        max_free: buffers not in use that stay in the pool, the latest.
    """

    def __init__(self, max_free: int):
        self._free: deque[mmap.mmap] = deque(maxlen=max_free)

    def allocate(self, batch_size: int, spec: ArraySpec) -> np.ndarray:
        """Return an array of shape [batch_size, *spec.shape] with arbitrary content."""
        count = batch_size * math.prod(spec.shape)
        buffer = self._take(max(1, count * spec.dtype.itemsize))
        # The base of every view is this array, as NumPy goes back to the first array and no further.
        flat = np.frombuffer(buffer, spec.dtype, count)
        weakref.finalize(flat, self._free.append, buffer).atexit = False
        return flat.reshape(batch_size, *spec.shape)

    def _take(self, size: int) -> mmap.mmap:
        for _ in range(len(self._free)):
            buffer = self._free.popleft()
            if size <= len(buffer) <= 2 * size:
                return buffer
            self._free.append(buffer)
        buffer = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            buffer.madvise(mmap.MADV_HUGEPAGE)
        return buffer
