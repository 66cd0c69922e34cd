import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videodit_data.reading.buckets import (
    ONLY_IMAGES,
    ONLY_VIDEOS,
    TOO_SHORT,
    TOO_SMALL,
    Bucket,
    Buckets,
    TokenSize,
    assign_buckets,
)
from videodit_data.video.resampling import covers

BUCKETS = Buckets(resolutions=(64, 128, 256), frames=(1, 5, 9, 17), fps=8.0, tokens=4096)
ALL = [
    Bucket(frames, *size)
    for size in sorted({size for resolution in BUCKETS.resolutions for size in BUCKETS.frame_sizes(resolution)})
    for frames in BUCKETS.frames
]
SIDES = st.integers(16, 2000)


@given(frames=st.integers(1, 300), fps=st.sampled_from([8.0, 12.5, 24.0, 30.0]), height=SIDES, width=SIDES)
def test_a_clip_fills_its_bucket_and_would_no_better_one(frames, fps, height, width):
    choice = BUCKETS.choose(frames, fps, height, width)
    fits = [b for b in ALL if max(b.height / height, b.width / width) <= 1 and (b.frames == 1) == (frames == 1)]
    reached = [b for b in fits if frames == 1 or covers(frames, fps, b.frames, 8.0)]
    if isinstance(choice, str):
        # Nothing of the aspect that is nearest to the clip's fits.
        lengths = [n for n in (5, 9, 17) if frames > 1 and covers(frames, fps, n, 8.0)]
        assert choice == (TOO_SMALL if frames == 1 or lengths else TOO_SHORT)
        return
    assert choice in reached
    assert choice.frames == max(b.frames for b in reached)
    # Of every larger resolution the aspect that is nearest to the clip's does not fit.
    for resolution in (128, 256):
        sizes = BUCKETS.frame_sizes(resolution)
        y, x = min(sizes, key=lambda size: (abs(np.log(size[1] / size[0]) - np.log(width / height)), size))
        assert y * x <= choice.height * choice.width or max(y / height, x / width) > 1


@pytest.mark.parametrize(
    ("clip", "bucket"),
    [
        ((17, 8.0, 256, 256), Bucket(17, 256, 256)),
        ((16, 8.0, 256, 256), Bucket(9, 256, 256)),
        ((300, 30.0, 1080, 1920), Bucket(17, 192, 336)),
        ((300, 30.0, 1920, 1080), Bucket(17, 336, 192)),
        ((1, 8.0, 128, 128), Bucket(1, 128, 128)),
        ((2, 8.0, 256, 256), TOO_SHORT),
        ((17, 8.0, 63, 64), TOO_SMALL),
    ],
)
def test_the_best_bucket(clip, bucket):
    assert BUCKETS.choose(*clip) == bucket


def test_images_and_videos_are_distinguished_from_too_short_clips():
    images, videos = dataclasses.replace(BUCKETS, frames=(1,)), dataclasses.replace(BUCKETS, frames=(5, 17))
    assert images.choose(99, 8.0, 512, 512) == ONLY_IMAGES and videos.choose(1, 8.0, 512, 512) == ONLY_VIDEOS
    assert videos.choose(2, 8.0, 512, 512) == TOO_SHORT


def test_enlarging_is_allowed_up_to_a_limit():
    assert BUCKETS.choose(17, 8.0, 200, 200) == Bucket(17, 128, 128)
    assert dataclasses.replace(BUCKETS, max_upscale=1.28).choose(17, 8.0, 200, 200) == Bucket(17, 256, 256)
    assert dataclasses.replace(BUCKETS, max_upscale=1.27).choose(17, 8.0, 200, 200) == Bucket(17, 128, 128)


def test_shapes_are_whole_tokens_of_about_the_same_number_and_batches_of_one_budget():
    for bucket in ALL:
        assert bucket.height % 16 == bucket.width % 16 == 0
        assert (
            BUCKETS.batch_size(bucket) * BUCKETS.count_tokens(bucket)
            <= 4096
            < (BUCKETS.batch_size(bucket) + 1) * BUCKETS.count_tokens(bucket)
        )
    areas = np.array([height * width for height, width in BUCKETS.frame_sizes(256)])
    assert (np.abs(areas / 256**2 - 1) < 0.05).all()
    assert TokenSize(4, 16).count(17, 64, 48) == 5 * 4 * 3


def test_every_clip_is_counted_once():
    clips = [(17, 8.0, 256, 256), (9, 8.0, 128, 128), (2, 8.0, 256, 256), (17, 8.0, 20, 20), (17, 8.0, 256, 256)]
    assignment = assign_buckets(BUCKETS.choose, clips)
    assert assignment.buckets == (Bucket(9, 128, 128), Bucket(17, 256, 256))
    assert assignment.indices.tolist() == [1, 0, -1, -1, 1]
    assert assignment.dropped == {TOO_SHORT: 1, TOO_SMALL: 1}
    assert assignment.crop_shares == (1.0, 1.0)
    assert assign_buckets(BUCKETS.choose, [(17, 8.0, 256, 512)]).crop_shares == (pytest.approx(0.875, abs=0.02),)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"frames": (16,)}, "A clip has 1 \\+ 4k frames"),
        ({"resolutions": ()}, "at least one resolution"),
        ({"max_upscale": 0.5}, "max_upscale is at least 1"),
        ({"resolutions": (256, 8)}, "resolutions are at least 16 pixels, not 8.$"),
        ({"aspects": (1.0, 0.0)}, "aspects are above 0 and finite, not 0.$"),
        ({"fps": float("nan")}, "rate is above 0 and finite, not nan"),
        ({"token": TokenSize(8, 16)}, "Buckets have 1 \\+ 8k frames"),
    ],
)
def test_buckets_that_cannot_be_are_refused(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(BUCKETS, **changed)
