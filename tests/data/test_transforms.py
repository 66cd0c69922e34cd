import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videodit_data import transforms

rates = st.sampled_from([1.0, 7.5, 8.0, 12.0, 24.0, 25.0, 30000 / 1001, 30.0, 60.0])


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20, unique=True), st.lists(st.integers(0, 500), max_size=20))
def test_nearest_is_the_brute_force_nearest(source: list[int], targets: list[int]):
    times = np.sort(np.array(source, dtype=float))
    wanted = np.array(targets, dtype=float)
    expected = [int(np.argmin(np.abs(times - target))) for target in wanted]  # argmin: ties to the earlier
    assert transforms.nearest(times, wanted).tolist() == expected


@given(rates, st.integers(1, 40), st.integers(0, 60))
def test_the_own_rate_gives_every_frame_once(fps: float, count: int, first: int):
    times = np.arange(first + count) / fps
    found = transforms.nearest(times, first / fps + np.arange(count) / fps)
    assert found.tolist() == list(range(first, first + count))


@given(st.integers(1, 100), rates, st.integers(0, 10), rates, st.integers(0, 2**32 - 1))
def test_a_window_that_is_covered_lies_inside_the_clip(frames: int, have: float, k: int, fps: float, seed: int):
    count = 1 + 4 * k
    if not transforms.covers(frames, have, count, fps):
        assert (count - 1) / fps > (frames - 1) / have
        return
    for rng in (None, np.random.default_rng(seed)):
        start = transforms.start_seconds(frames, have, count, fps, rng)
        assert start >= 0
        assert start + (count - 1) / fps <= (frames - 0.5) / have + 2e-6


def test_random_windows_reach_both_ends():
    starts = {round(8 * transforms.start_seconds(12, 8.0, 9, 8.0, np.random.default_rng(seed))) for seed in range(60)}
    assert starts == {0, 1, 2, 3}


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 100), st.integers(1, 100))
def test_the_cover_is_tight_and_keeps_the_aspect(height: int, width: int, target_height: int, target_width: int):
    covered = transforms.cover_size(height, width, target_height, target_width)
    assert covered[0] == target_height or covered[1] == target_width
    assert covered[0] >= target_height and covered[1] >= target_width
    scale = max(target_height / height, target_width / width)
    assert abs(covered[0] - height * scale) <= 1 and abs(covered[1] - width * scale) <= 1


def test_crops_are_of_the_centre_or_anywhere():
    assert transforms.choose_crop((5, 7), (3, 3), None) == (1, 2)
    corners = {transforms.choose_crop((5, 7), (3, 3), np.random.default_rng(seed)) for seed in range(300)}
    assert corners == {(top, left) for top in range(3) for left in range(5)}
    assert transforms.choose_crop((5, 7), (5, 7), np.random.default_rng(0)) == (0, 0)


def test_a_crop_larger_than_the_clip_is_refused():
    with pytest.raises(ValueError, match="6 x 7 pixels out of 5 x 7"):
        transforms.choose_crop((5, 7), (6, 7), None)


def test_captions_are_chosen_evenly_and_dropped_at_the_rate():
    rng, texts = np.random.default_rng(0), ("a", "b", "c")
    chosen = [transforms.choose_caption(texts, 0.2, rng) for _ in range(6000)]
    assert abs(chosen.count("") / 6000 - 0.2) < 0.02
    assert all(abs(chosen.count(text) / 6000 - 0.8 / 3) < 0.02 for text in texts)
    assert transforms.choose_caption(texts, 0.0, None) == "a"
    assert transforms.choose_caption(texts, 1.0, rng) == ""
