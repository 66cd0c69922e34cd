import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videodit_data.reading import transforms


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
    captions = [transforms.choose_caption(texts, 0.2, rng) for _ in range(6000)]
    assert abs(captions.count("") / 6000 - 0.2) < 0.02
    assert all(abs(captions.count(text) / 6000 - 0.8 / 3) < 0.02 for text in texts)
    assert transforms.choose_caption(texts, 0.0, None) == "a"
    assert transforms.choose_caption(texts, 1.0, rng) == ""
