import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.reading.clip_window import choose_windows
from videodit_data.reading.sample import ClipShape, decode_pixels, decode_window
from videodit_data.storage import manifest
from videodit_data.toyworld import build
from videodit_data.video.resampling import covers


@settings(deadline=None, max_examples=100)
@given(
    frames=st.integers(1, 60),
    rates=st.tuples(st.sampled_from([8.0, 25.0, 30.0]), st.sampled_from([8.0, 16.0])),
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    window_size=st.tuples(st.sampled_from([1, 5, 17]), st.integers(4, 64), st.integers(4, 64)),
    count=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_windows_differ_lie_in_the_clip_and_start_with_the_plain_one(frames, rates, size, window_size, count, seed):
    clip, shape = (frames, rates[0], *size), (window_size[0], rates[1], *window_size[1:])
    windows = choose_windows(clip, shape, count, seed)
    assert windows == choose_windows(clip, shape, count, seed)
    assert 1 <= len(windows) == len(set(windows)) <= count
    for window in windows:
        assert 0 <= window.top <= window.height - shape[2] and 0 <= window.left <= window.width - shape[3]
        rest = frames - round(window.start * rates[0])
        assert covers(rest, rates[0], window_size[0], rates[1]) or not covers(
            frames, rates[0], window_size[0], rates[1]
        )
    middle = (windows[0].height - shape[2]) // 2, (windows[0].width - shape[3]) // 2
    assert windows[0].start == 0 and (windows[0].top, windows[0].left) == middle
    if len(windows) < count:  # there are no others
        every = choose_windows(clip, shape, 10**6, seed + 1)
        assert set(windows) == set(every)


def test_a_window_holds_the_pixels_that_it_says(tmp_path):
    build(tmp_path / "set", clips=1, level="easy", seed=0, height=24, width=40, frames=9, fps=8.0)
    record = manifest.records(tmp_path / "set")[0]
    shape = ClipShape(5, 16, 16, 8.0)
    windows = choose_windows((9, 8.0, 24, 40), (5, 8.0, 16, 16), 6, 0)
    frames = decode_pixels(record, ClipShape(9, windows[0].height, windows[0].width, 8.0))
    assert np.array_equal(decode_window(record, shape, windows[0]), decode_pixels(record, shape))
    for window in windows:
        start = round(window.start * 8)
        part = frames[start : start + 5, window.top : window.top + 16, window.left : window.left + 16]
        assert np.array_equal(decode_window(record, shape, window), part)
    assert len({window.start for window in windows}) > 1
