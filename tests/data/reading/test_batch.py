import dataclasses

import numpy as np
import pytest
from videodit_data.reading.batch import Batch, HostBatch
from videodit_data.reading.buckets import check_frames


def make_batch(**changes) -> Batch:
    arrays = {
        "video": np.zeros((2, 5, 8, 8, 3), np.uint8),
        "latent_mean": None,
        "latent_logvar": None,
        "text_ids": np.zeros((2, 4), np.int32),
        "text_mask": np.zeros((2, 4), bool),
        "fps": np.full(2, 8, np.float32),
        "valid": np.array([True, False]),
    }
    return Batch(**arrays | changes)


def test_a_printed_batch_shows_a_line_an_array():
    batch = make_batch(conditions={"depth": np.zeros((2, 5, 8, 8), np.float32)})
    assert repr(batch).splitlines() == [
        "Batch",
        "  video: uint8 [2, 5, 8, 8, 3]",
        "  text_ids: int32 [2, 4]",
        "  text_mask: bool [2, 4]",
        "  fps: float32 [2]",
        "  valid: bool [2]",
        "  conditions/depth: float32 [2, 5, 8, 8]",
    ]
    lines = repr(HostBatch(batch, ("a", ""), ("a fox", ""))).splitlines()
    assert lines[0] == "HostBatch" and lines[-2:] == ["  clip_ids: ('a', '')", "  captions: ('a fox', '')"]


def test_clips_and_packed_sequences_share_one_class():
    packed = make_batch(
        video=None,
        latent_mean=np.zeros((2, 16, 8), np.float16),
        latent_logvar=np.zeros((2, 16, 8), np.float16),
        text_ids=np.zeros((2, 3, 4), np.int32),
        text_mask=np.zeros((2, 3, 4), bool),
        fps=np.zeros((2, 3), np.float32),
        valid=np.ones((2, 3), bool),
        segments=np.zeros((2, 16), np.int32),
        positions=np.zeros((2, 16, 3), np.int32),
    )
    assert packed.size == 2 and packed.posterior[0].dtype == np.float32


@pytest.mark.parametrize(
    "change",
    [
        {"fps": np.zeros(3, np.float32)},
        {"fps": np.zeros(2, np.float64)},
        {"text_ids": np.zeros((2, 3, 4), np.int32)},
        {"conditions": {"depth": np.zeros((3, 5), np.float32)}},
    ],
)
def test_arrays_of_other_shapes_or_types_are_refused(change):
    with pytest.raises(Exception, match="Batch"):
        dataclasses.replace(make_batch(), **change)


@pytest.mark.parametrize("frames", [1, 5, 9, 81])
def test_a_clip_may_have_one_plus_four_k_frames(frames: int):
    check_frames(frames)


@pytest.mark.parametrize(("frames", "hint"), [(0, "1 and 5"), (4, "1 and 5"), (16, "13 and 17"), (-3, "1 and 5")])
def test_other_lengths_are_refused_with_the_neighbours(frames: int, hint: str):
    with pytest.raises(ValueError, match=hint):
        check_frames(frames)
