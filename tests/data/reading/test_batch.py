import numpy as np
import pytest
from videodit_data.reading.batch import Batch
from videodit_data.reading.buckets import check_frames


def batch(clip_ids: tuple[str, ...]) -> Batch:
    rows = len(clip_ids)
    return Batch(
        video=np.zeros((rows, 5, 8, 8, 3), np.uint8),
        latent_mean=None,
        latent_logvar=None,
        text_ids=np.zeros((rows, 4), np.int32),
        text_mask=np.zeros((rows, 4), bool),
        fps=np.full(rows, 8, np.float32),
        clip_ids=clip_ids,
        captions=("",) * rows,
    )


def test_rows_without_a_clip_id_are_padding():
    assert batch(("a", "", "b")).real.tolist() == [True, False, True]


def test_only_arrays_go_to_the_devices():
    assert set(batch(("a",)).arrays()) == {"video", "text_ids", "text_mask", "fps"}


@pytest.mark.parametrize("frames", [1, 5, 9, 81])
def test_a_clip_may_have_one_plus_four_k_frames(frames: int):
    check_frames(frames)


@pytest.mark.parametrize(("frames", "hint"), [(0, "1 and 5"), (4, "1 and 5"), (16, "13 and 17"), (-3, "1 and 5")])
def test_other_lengths_are_refused_with_the_neighbours(frames: int, hint: str):
    with pytest.raises(ValueError, match=hint):
        check_frames(frames)
