import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.captioning.pace import Pace, backoff


class Clock:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@settings(deadline=None)
@given(
    st.floats(0.5, 600),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["take", "rest", "pause"]), st.floats(0, 100)), max_size=40),
)
def test_no_window_holds_more_requests_than_its_length_allows(per_minute, burst, steps):
    clock, request_times, pause_end = Clock(), [], 0.0
    pace = Pace(per_minute, burst, clock=lambda: clock.now, sleep=clock.sleep)
    for step, seconds in steps:
        if step == "rest":
            clock.now += seconds
        elif step == "pause":
            pace.pause(seconds)
            pause_end = max(pause_end, clock.now + seconds)
        else:
            pace.take()
            assert clock.now >= pause_end
            request_times.append(clock.now)
    for first in range(len(request_times)):
        for last in range(first, len(request_times)):
            allowed = burst + (request_times[last] - request_times[first]) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-6


def test_no_request_waits_longer_than_it_must():
    clock = Clock()
    pace = Pace(60, 3, clock=lambda: clock.now, sleep=clock.sleep)
    times = []
    for _ in range(6):
        pace.take()
        times.append(clock.now)
    assert times == pytest.approx([0, 0, 0, 1, 2, 3])
    free = Pace(None, clock=lambda: clock.now, sleep=clock.sleep)
    before = clock.now
    for _ in range(100):
        free.take()
    assert clock.now == before


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (10, 0)])
def test_a_rate_is_more_than_nothing(rate, burst):
    with pytest.raises(ValueError, match="more than 0 requests a minute"):
        Pace(rate, burst)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0.01, 10), st.floats(10, 1000), st.integers())
def test_waits_double_up_to_a_most_with_chance_below(attempt, first, most, seed):
    full = min(most, first * 2.0 ** min(attempt - 1, 60))
    assert full / 2 <= backoff(attempt, first, most, random.Random(seed)) <= full
