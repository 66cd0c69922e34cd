from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from videodit_data import video
from videodit_data.reading.sample import ClipShape, decode_pixels, read_latents
from videodit_data.storage import manifest, records


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, data_set: Callable[..., Path]) -> records.Record:
    return manifest.records(data_set(tmp_path_factory.mktemp("examples") / "set", [24]))[0]


def test_pixels_are_resampled_scaled_and_cropped(record: records.Record, numbers: Callable):
    clip = decode_pixels(record, ClipShape(5, 16, 16, 4.0))
    assert clip.shape == (5, 16, 16, 3) and numbers(clip) == [0, 2, 4, 6, 8]
    windows = [
        numbers(decode_pixels(record, ClipShape(9, 64, 40, 8.0), np.random.default_rng(seed))) for seed in range(8)
    ]
    assert all(window == list(range(window[0], window[0] + 9)) for window in windows)
    assert len({window[0] for window in windows}) > 3


def test_the_own_size_is_decoded_untouched(record: records.Record):
    assert np.array_equal(decode_pixels(record, ClipShape(9, 32, 48, 8.0)), video.decode(record.video, 0, 9))


def test_pixels_are_written_where_asked(record: records.Record):
    shape, out = ClipShape(5, 16, 24, 8.0), np.zeros((7, 5, 20, 30, 3), np.uint8)
    there = out[3, :, 2:18, 1:25]
    assert decode_pixels(record, shape, np.random.default_rng(2), there) is there
    assert np.array_equal(there, decode_pixels(record, shape, np.random.default_rng(2)))
    there[:] = 0
    assert not out.any()


def test_damage_names_the_clip(record: records.Record):
    broken = records.Record(**{**vars(record), "video": record.video[: len(record.video) // 2]})
    with pytest.raises(video.VideoError, match=r"^clip clip-000: "):
        decode_pixels(broken, ClipShape(17, 32, 48, 8.0))


@pytest.mark.parametrize(("stride", "length"), [(1, 13), (2, 7), (4, 4)])
def test_latents_of_a_beginning_are_the_beginning_of_the_latents(record: records.Record, stride: int, length: int):
    mean = np.random.default_rng(0).normal(size=(length, 4, 6, 8)).astype(np.float16).astype(np.float32)
    latent_record = records.with_latent(record, mean, -mean, fps=8.0, frames=13, height=32, width=48)
    for frames in (1, 5, 13):
        read_mean, logvar = read_latents(latent_record, ClipShape(frames, 32, 48, 8.0))
        assert np.array_equal(read_mean, mean[: 1 + (frames - 1) // stride]) and np.array_equal(logvar, -read_mean)
    for other in (ClipShape(17, 32, 48, 8.0), ClipShape(5, 32, 32, 8.0), ClipShape(5, 32, 48, 4.0)):
        with pytest.raises(ValueError, match="clip clip-000 encode 13 frames of 32 x 48 at 8 per second"):
            read_latents(latent_record, other)
