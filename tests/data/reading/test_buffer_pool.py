import gc

import numpy as np
import pytest
from videodit_data.reading.batch import ArraySpec
from videodit_data.reading.buffer_pool import BufferPool

SPEC = ArraySpec((3, 4), np.dtype(np.float16))


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_nothing_is_left_of_an_array():
    pool = BufferPool(max_free=2)
    array = pool.allocate(5, SPEC)
    assert array.shape == (5, 3, 4) and array.dtype == np.float16 and not array.any()
    array[...] = 7
    first = address(array)
    view = array[1:][..., ::2].reshape(4, 6).view(np.int16)[2]
    del array
    assert address(pool.allocate(5, SPEC)) != first and (view == np.float16(7).view(np.int16)).all()
    del view
    gc.collect()
    assert first in (address(pool.allocate(5, SPEC)), address(pool.allocate(5, SPEC)))


@pytest.mark.parametrize(("size", "reuses"), [(5, True), (3, True), (2, False), (6, False)])
def test_a_piece_serves_what_fills_half_of_it(size, reuses):
    pool = BufferPool(max_free=2)
    first = address(array := pool.allocate(5, SPEC))
    del array
    assert (address(pool.allocate(size, SPEC)) == first) == reuses


def test_no_more_stays_free_than_allowed():
    pool = BufferPool(max_free=2)
    arrays = [pool.allocate(1, SPEC) for _ in range(5)]
    arrays.clear()
    assert len(pool._free) == 2
