from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from videodit_data import manifest, records, video
from videodit_data.examples import ClipShape, MakeExample, batch_spec, collate, latents, pixels
from videodit_data.spec import Batch
from videodit_data.tokenize import Tokenizer, train


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, data_set: Callable[..., Path]) -> records.Record:
    return manifest.records(data_set(tmp_path_factory.mktemp("examples") / "set", [24]))[0]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train(["clip 0 gets brighter", "a grey field, number 0"], 60))


def test_pixels_are_resampled_scaled_and_cropped(record: records.Record, numbers: Callable):
    clip = pixels(record, ClipShape(5, 16, 16, 4.0))
    assert clip.shape == (5, 16, 16, 3) and numbers(clip) == [0, 2, 4, 6, 8]
    windows = [numbers(pixels(record, ClipShape(9, 64, 40, 8.0), np.random.default_rng(seed))) for seed in range(8)]
    assert all(window == list(range(window[0], window[0] + 9)) for window in windows)
    assert len({window[0] for window in windows}) > 3


def test_the_own_size_is_decoded_untouched(record: records.Record):
    assert np.array_equal(pixels(record, ClipShape(9, 32, 48, 8.0)), video.decode(record.video, 0, 9))


def test_damage_names_the_clip(record: records.Record):
    broken = records.Record(**{**vars(record), "video": record.video[: len(record.video) // 2]})
    with pytest.raises(video.VideoError, match=r"^clip clip-000: "):
        pixels(broken, ClipShape(17, 32, 48, 8.0))


@pytest.mark.parametrize(("stride", "length"), [(1, 13), (2, 7), (4, 4)])
def test_latents_of_a_beginning_are_the_beginning_of_the_latents(record: records.Record, stride: int, length: int):
    mean = np.random.default_rng(0).normal(size=(length, 4, 6, 8)).astype(np.float16).astype(np.float32)
    coded = records.with_latent(record, mean, -mean, fps=8.0, frames=13, height=32, width=48)
    for frames in (1, 5, 13):
        found, logvar = latents(coded, ClipShape(frames, 32, 48, 8.0))
        assert np.array_equal(found, mean[: 1 + (frames - 1) // stride]) and np.array_equal(logvar, -found)
    for other in (ClipShape(17, 32, 48, 8.0), ClipShape(5, 32, 32, 8.0), ClipShape(5, 32, 48, 4.0)):
        with pytest.raises(ValueError, match="clip clip-000 code 13 frames of 32 x 48 at 8 a second"):
            latents(coded, other)


def test_a_row_of_padding_is_zero_beside_a_clip(record: records.Record, tokenizer: Tokenizer):
    shape = ClipShape(5, 16, 24, 8.0)
    spec = batch_spec(2, shape, 8, record)
    make = MakeExample(shape, tokenizer, 8, 0.0, False, spec)
    batch = Batch(**collate([make(record.pack(), np.random.default_rng(0)), make(b"", np.random.default_rng(0))]))
    assert batch.clip_ids == ("clip-000", "") and batch.captions == ("clip 0 gets brighter", "")
    assert {name: (value.shape, value.dtype) for name, value in batch.arrays().items()} == dict(spec)
    assert not any(value[1].any() for value in batch.arrays().values())
    assert batch.video[0].min() >= -1 and batch.fps[0] == 8


def test_one_generator_state_gives_one_example(record: records.Record, tokenizer: Tokenizer):
    shape = ClipShape(5, 16, 16, 8.0)
    make = MakeExample(shape, tokenizer, 8, 0.5, True, batch_spec(1, shape, 8, record))
    first, again, other = (make(record.pack(), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first["video"], again["video"]) and first["captions"] == again["captions"]
    assert not np.array_equal(first["video"], other["video"])
