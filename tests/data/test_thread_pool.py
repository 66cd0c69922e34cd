import threading

import pytest
from videodit_data.thread_pool import ordered_map


def test_results_come_in_order_whatever_finishes_first():
    second_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_done.wait(10)
        else:
            second_done.set()
        return item * item

    assert list(ordered_map(work, range(20), threads=3)) == [item * item for item in range(20)]


def test_it_runs_only_a_little_ahead_of_its_reader():
    started_items = []

    def items():
        for item in range(100):
            started_items.append(item)
            yield item

    results = ordered_map(lambda item: item, items(), threads=2)
    assert next(results) == 0
    assert len(started_items) <= 6
    results.close()


def test_an_error_reaches_the_reader():
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda item: 1 // item, [1, 0, 1], threads=2))


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="at least one thread"):
        list(ordered_map(str, [1], threads=0))
