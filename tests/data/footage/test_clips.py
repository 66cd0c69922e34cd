"""Division of shots: without a loss where possible, into parts that are neither too long nor too short."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.footage.analysis_result import Shot
from videodit_data.footage.clips import ClipConfig, divide


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.sampled_from([8.0, 23.976, 25.0, 60.0]),
    st.sampled_from([(0.5, 5.0), (2.0, 10.0), (4.0, 5.0), (3.0, 3.0)]),
    st.booleans(),
)
def test_each_frame_is_in_one_part_and_clips_keep_their_bounds(lengths, fps, bounds, steady):
    edges = [0, *itertools.accumulate(lengths)]
    seconds = [(frame if steady else frame + 0.4 * (frame * 7 % 11) / 11) / fps for frame in range(edges[-1] + 1)]
    shots = [Shot(start, stop) for start, stop in itertools.pairwise(edges)]
    clips, short = divide(shots, seconds, ClipConfig(*bounds))
    covered = sorted(frame for part in (*clips, *short) for frame in range(part.start, part.stop))
    assert covered == list(range(edges[-1]))
    for clip in clips:
        assert bounds[0] - 1.4 / fps < seconds[clip.stop] - seconds[clip.start] <= bounds[1] + 1e-5
        assert any(shot.start <= clip.start and clip.stop <= shot.stop for shot in shots)
    for shot in shots:
        inside = [part for part in short if shot.start <= part.start < shot.stop]
        length = seconds[shot.stop] - seconds[shot.start]
        # Nothing is lost of a shot that even parts of more than the least length fill, with a frame's room.
        fewest = -(-length // (bounds[1] - 2 / fps))
        if length >= bounds[0] and length / fewest >= bounds[0] + 2 / fps:
            assert not inside
        if steady:
            assert sum(seconds[part.stop] - seconds[part.start] for part in inside) < bounds[0] + 1.4 / fps


@pytest.mark.parametrize(
    ("frames", "clips", "short"),
    [
        (39, [], [39]),
        (40, [40], []),
        (200, [200], []),
        (201, [100, 101], []),
        (600, [200] * 3, []),
        (410, [137] * 2 + [136], []),
    ],
)
def test_shots_become_the_fewest_even_parts(frames, clips, short):
    results = divide([Shot(0, frames)], [frame / 20 for frame in range(frames + 1)], ClipConfig(2, 10))
    assert [sorted(part.stop - part.start for part in parts) for parts in results] == [sorted(clips), short]


def test_a_frame_that_is_shown_too_long_is_no_clip():
    clips, short = divide([Shot(0, 61)], [0.1 * frame for frame in range(60)] + [6.0, 66.0], ClipConfig(2, 10))
    assert clips == (Shot(0, 60),) and short == (Shot(60, 61),)


def test_bounds_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="0 < min_seconds <= max_seconds, not 5 and 4"):
        ClipConfig(5, 4)
