import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from videodit_data.video import resampling

rates = st.sampled_from([1.0, 7.5, 8.0, 12.0, 24.0, 25.0, 30000 / 1001, 30.0, 60.0])


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20, unique=True), st.lists(st.integers(0, 500), max_size=20))
def test_nearest_is_the_brute_force_nearest(source: list[int], targets: list[int]):
    times = np.sort(np.array(source, dtype=float))
    target_times = np.array(targets, dtype=float)
    expected = [int(np.argmin(np.abs(times - target))) for target in target_times]  # argmin: ties to the earlier
    assert resampling.nearest(times, target_times).tolist() == expected


@given(rates, st.integers(1, 40), st.integers(0, 60))
def test_the_own_rate_gives_every_frame_once(fps: float, count: int, first: int):
    times = np.arange(first + count) / fps
    indices = resampling.nearest(times, first / fps + np.arange(count) / fps)
    assert indices.tolist() == list(range(first, first + count))


@given(st.integers(1, 100), rates, st.integers(0, 10), rates, st.integers(0, 2**32 - 1))
def test_a_window_that_is_covered_lies_inside_the_clip(frames: int, have: float, k: int, fps: float, seed: int):
    count = 1 + 4 * k
    if not resampling.covers(frames, have, count, fps):
        assert (count - 1) / fps > (frames - 1) / have
        return
    for rng in (None, np.random.default_rng(seed)):
        start = resampling.choose_start(frames, have, count, fps, rng)
        assert start >= 0
        assert start + (count - 1) / fps <= (frames - 0.5) / have + 2e-6


def test_random_windows_reach_both_ends():
    starts = {round(8 * resampling.choose_start(12, 8.0, 9, 8.0, np.random.default_rng(seed))) for seed in range(60)}
    assert starts == {0, 1, 2, 3}
