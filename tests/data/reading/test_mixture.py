"""Loaders of several data sets: every clip once, for any number of processes and threads, and after resuming."""

import dataclasses
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import Buckets
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest, records
from videodit_data.tokenizer import NoTokenizer

BUCKETS = Buckets(resolutions=(32,), aspects=(1.0, 1.5), frames=(5, 9, 17), fps=8.0, tokens=120)
PACKING = Packing(64, clips=6, look_ahead=24, stride=(4, 4))
TEXTS = TokenizedText(NoTokenizer())
SIZES = [(1, 16, 16), (5, 16, 24), (9, 24, 16), (17, 16, 16), (5, 32, 32), (13, 24, 24), (1, 40, 24), (9, 32, 16)]


@pytest.fixture(scope="module")
def videos(data_set, tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    return data_set(root / "long", [9, 17, 5, 21, 12, 9, 9], shards=2), data_set(root / "square", [9] * 5, 8.0, 48, 48)


@pytest.fixture(scope="module")
def latents_path(tmp_path_factory):
    """Write latents of clips of all sizes, whose values identify the clip."""

    def record(number):
        frames, height, width = SIZES[number % len(SIZES)]
        shape = 1 + (frames - 1) // 4, height // 4, width // 4, 2
        mean = number + np.arange(np.prod(shape)).reshape(shape) / 1024
        size = {"fps": 8.0 if number % 2 else 16.0, "frames": frames, "height": height, "width": width}
        original = records.from_video(
            f"clip-{number}", b"", [f"clip {number}"], **size, source="tests", licence="CC0-1.0"
        )
        return records.with_latent(original, mean, -mean, **size)

    path = tmp_path_factory.mktemp("latents") / "set"
    manifest.build(path, lambda part: map(record, part), 40, shards=3, info={})
    return path


def config(*paths, **changed):
    parts = tuple(path if isinstance(path, WeightedDataset) else WeightedDataset(str(path)) for path in paths)
    return ReaderConfig(parts, **({"shapes": BUCKETS, "caption_dropout": 0.0} | changed))


def ids(batch):
    return [name for row in batch.clip_ids for name in ([row] if isinstance(row, str) else row) if name]


def same(one, other):
    assert one.clip_ids == other.clip_ids and one.captions == other.captions
    for name, value in one.arrays.arrays().items():
        np.testing.assert_array_equal(value, other.arrays.arrays()[name])


def test_buckets_serve_every_clip_of_a_pass_once(videos):
    loader = BatchIterator(config(*videos).as_evaluation(), TEXTS)
    batches = list(loader)
    assert Counter(name for batch in batches for name in ids(batch)) == Counter(
        {f"clip-{n:03d}": 2 if n < 5 else 1 for n in range(7)}
    )
    shapes = {batch.arrays.video.shape[1:] for batch in batches}
    assert shapes == {(9, 32, 32, 3), (9, 32, 48, 3), (5, 32, 48, 3), (17, 32, 48, 3)}
    for batch in batches:
        frames, height, width = batch.arrays.video.shape[1:4]
        tokens = (1 + (frames - 1) // 4) * (height // 16) * (width // 16)
        assert len(batch.clip_ids) == 120 // tokens
        padding = ~batch.arrays.valid
        assert (
            not batch.arrays.video[padding].any()
            and not batch.arrays.text_mask[padding].any()
            and not batch.arrays.fps[padding].any()
        )
        assert batch.arrays.text_mask[batch.arrays.valid].any(1).all()
    assert loader.epochs == {str(path): 1.0 for path in videos}


def test_frames_are_those_of_the_clip(videos, numbers):
    for batch in BatchIterator(config(videos[0]).as_evaluation(), TEXTS):
        for clip in batch.arrays.video[batch.arrays.valid]:
            assert numbers(clip) == list(range(len(clip)))


def test_rows_hold_the_tokens_of_their_clips(latents_path):
    clip_counts = Counter()
    for batch in BatchIterator(config(latents_path, shapes=PACKING, batch_size=2).as_evaluation(), TEXTS):
        assert batch.arrays.latent_mean.shape == (2, 64, 8) and batch.arrays.positions.shape == (2, 64, 3)
        for row in range(2):
            for n, name in enumerate(batch.clip_ids[row]):
                here = batch.arrays.segments[row] == n + 1
                if not name:
                    assert not here.any() and batch.arrays.fps[row, n] == 0
                    continue
                number = int(name.removeprefix("clip-"))
                frames, height, width = SIZES[number % len(SIZES)]
                t, y, x = 1 + (frames - 1) // 4, height // 4, width // 4
                latents = records.unpack(_record(latents_path, number)).latent.arrays()[0]
                patches = latents.reshape(t, y // 2, 2, x // 2, 2, 2).swapaxes(2, 3).reshape(-1, 8)
                np.testing.assert_array_equal(batch.arrays.latent_mean[row, here], patches)
                np.testing.assert_array_equal(batch.arrays.latent_logvar[row, here], -patches)
                positions = [(a, b, c) for a in range(t) for b in range(y // 2) for c in range(x // 2)]
                np.testing.assert_array_equal(batch.arrays.positions[row, here], positions)
                assert batch.arrays.fps[row, n] == (8.0 if number % 2 else 16.0)
                clip_counts[number] += 1
            nobody = batch.arrays.segments[row] == 0
            assert not batch.arrays.latent_mean[row, nobody].any()
    assert clip_counts == Counter(range(40))


def _record(path, number):
    return manifest.records(path).packed(number)


@pytest.mark.parametrize("shapes", [BUCKETS, PACKING], ids=["buckets", "packed"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_it_resumes_where_it_stopped_whatever_was_read_ahead(latents_path, shapes, after):
    reader_config = config(latents_path, shapes=shapes, batch_size=3, caption_dropout=0.3, seed=3)
    one = BatchIterator(reader_config, TEXTS)
    for _ in range(after):
        next(one)
    state = json.loads(json.dumps(one.get_state()))
    other = BatchIterator(dataclasses.replace(reader_config, num_threads=1, prefetch=1), TEXTS)
    other.set_state(state)
    for _ in range(6):
        same(next(one), next(other))
    assert one.clips_served == other.clips_served and one.get_state() == other.get_state()


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("shapes", [BUCKETS, PACKING], ids=["buckets", "packed"])
def test_a_batch_that_is_held_stays_and_one_in_used_memory_is_as_in_fresh(latents_path, shapes, once):
    """Check also the last batches of one pass, which have rows without a clip."""
    reader_config = config(latents_path, shapes=shapes, batch_size=3)
    reader_config = reader_config.as_evaluation() if once else reader_config
    fresh, retained = list(itertools.islice(BatchIterator(reader_config, TEXTS), 16)), []
    for number, (batch, expected) in enumerate(zip(BatchIterator(reader_config, TEXTS), fresh, strict=False)):
        same(batch, expected)
        if number % 5 == 0:
            retained.append((batch, expected))
        else:
            # Nothing of it may be left in the next batches.
            batch.arrays.latent_mean[...] = batch.arrays.latent_logvar[...] = 99
    for batch, expected in retained:
        same(batch, expected)


@pytest.mark.parametrize("shapes", [BUCKETS, PACKING], ids=["buckets", "packed"])
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_serve_the_batch_of_one(latents_path, shapes, processes):
    """Check also a change of the number of processes between a state and its restoration."""
    reader_config = config(latents_path, shapes=shapes, batch_size=4, multiple=4, seed=1)
    alone = BatchIterator(reader_config, TEXTS)
    some = [
        BatchIterator(
            reader_config, TEXTS, local_batch_indices=lambda n, p=p: range(p * n // processes, (p + 1) * n // processes)
        )
        for p in range(processes)
    ]
    for _ in range(4):
        batch, parts = next(alone), [next(each) for each in some]
        assert sum((part.clip_ids for part in parts), ()) == batch.clip_ids
        for name, value in batch.arrays.arrays().items():
            np.testing.assert_array_equal(np.concatenate([part.arrays.arrays()[name] for part in parts]), value)
    assert all(each.get_state() == alone.get_state() for each in some)
    half = BatchIterator(reader_config, TEXTS, local_batch_indices=lambda size: range(size // 2))
    half.set_state(some[-1].get_state())
    batch = next(alone).clip_ids
    assert next(half).clip_ids == batch[: len(batch) // 2]


def test_parts_come_by_weight_and_each_in_whole_epochs(videos):
    reader_config = config(WeightedDataset(str(videos[0]), 3.0), WeightedDataset(str(videos[1]), 1.0), seed=5)
    loader = BatchIterator(reader_config, TEXTS)
    names = [name for batch in itertools.islice(loader, 60) for name in ids(batch)]
    assert sum(loader.clips_served) >= len(names)
    assert loader.clips_served[0] / sum(loader.clips_served) == pytest.approx(0.75, abs=0.02)
    assert loader.epochs[str(videos[0])] == loader.clips_served[0] / 7


def test_images_and_videos_come_in_batches_of_their_own_by_weight(videos, data_set, tmp_path):
    images = data_set(tmp_path / "images", [1] * 6, height=48, width=32)
    buckets = dataclasses.replace(BUCKETS, frames=(1, 5, 9, 17), aspects=(2 / 3, 1.0, 1.5))
    loader = BatchIterator(
        config(WeightedDataset(str(images), 1.0), WeightedDataset(str(videos[0]), 1.0), shapes=buckets), TEXTS
    )
    shapes = Counter()
    while sum(loader.clips_served) < 240:
        batch = next(loader)
        shapes[batch.arrays.video.shape] += 1
    assert shapes.keys() == {(60, 1, 32, 16, 3), (4, 17, 32, 48, 3), (6, 9, 32, 48, 3), (10, 5, 32, 48, 3)}
    assert abs(loader.clips_served[0] - loader.clips_served[1]) <= 60 + 20  # what is held back until it fills a batch


def test_what_is_another_mixture_is_refused(latents_path, videos):
    state = BatchIterator(config(latents_path, shapes=PACKING), TEXTS).get_state()
    with pytest.raises(ValueError, match="state of other data: rows differ"):
        BatchIterator(config(latents_path, shapes=PACKING, batch_size=5), TEXTS).set_state(state)
    with pytest.raises(ValueError, match="weights differ"):
        BatchIterator(config(WeightedDataset(str(latents_path), 2.0), shapes=PACKING), TEXTS).set_state(state)
    with pytest.raises(ValueError, match="Not the state of a reader"):
        BatchIterator(config(latents_path, shapes=PACKING), TEXTS).set_state({"next_batch": 1, "of": {}})
    with pytest.raises(ValueError, match="of videos or of latents, not of both"):
        BatchIterator(config(latents_path, videos[0]), TEXTS)
    with pytest.raises(ValueError, match="Only latents are packed"):
        BatchIterator(config(videos[0], shapes=PACKING), TEXTS)
    with pytest.raises(ValueError, match="weights of a mixture are above 0"):
        BatchIterator(config(WeightedDataset(str(latents_path), 0.0)), TEXTS)
    large = dataclasses.replace(BUCKETS, frames=(49,), tokens=10**4)
    with pytest.raises(ValueError, match="no clip fits the buckets: 7 too short"):
        BatchIterator(config(videos[0], shapes=large), TEXTS)
    with pytest.raises(ValueError, match="has no room for 64 clips of"):
        BatchIterator(config(videos[0], multiple=64), TEXTS)
    with pytest.raises(ValueError, match="A batch of 12 tokens has no room for 1 clip of 9 x 32 x 48, of 18 each"):
        BatchIterator(config(videos[0], shapes=dataclasses.replace(BUCKETS, frames=(9,), tokens=12)), TEXTS)
    with pytest.raises(ValueError, match="no clip fits the packed sequences: 40 longer than a packed sequence"):
        BatchIterator(config(latents_path, shapes=dataclasses.replace(PACKING, length=1)), TEXTS)


def test_a_clip_longer_than_a_row_is_counted_and_not_served(latents_path, caplog):
    loader = BatchIterator(
        config(latents_path, shapes=dataclasses.replace(PACKING, length=24), batch_size=2).as_evaluation(), TEXTS
    )
    tokens = [(1 + (frames - 1) // 4) * height * width // 64 for frames, height, width in SIZES]
    too_long = sum(count > 24 for count in tokens) * 5
    assert loader.source.assignments[0].dropped == {"longer than a packed sequence": too_long} and 0 < too_long < 40
    assert f"{too_long} of 40 clips are longer than a packed sequence" in caplog.text
    assert sum(len(ids(batch)) for batch in loader) == 40 - too_long


def test_latents_of_two_types_are_not_mixed(latents_path, tmp_path):
    source = manifest.records(latents_path)
    moments = [array.astype(np.float32) for array in source[0].latent.arrays()]
    size = {"fps": source[0].fps, "frames": source[0].frames, "height": source[0].height, "width": source[0].width}
    other = records.with_latent(source[0], *moments, **size, dtype="bfloat16")
    manifest.build(tmp_path / "other", lambda part: [other], 1, info={})
    with pytest.raises(ValueError, match="all of one type, not of bfloat16 and float16"):
        BatchIterator(config(latents_path, tmp_path / "other"), TEXTS)


def test_a_state_resumes_where_other_numbers_of_devices_share_a_batch(latents_path):
    reader_config = dataclasses.replace(config(latents_path, seed=2), shapes=dataclasses.replace(BUCKETS, tokens=600))
    eight, three = (BatchIterator(dataclasses.replace(reader_config, multiple=n, repeat=False), TEXTS) for n in (8, 3))
    served_ids = [name for _ in range(2) for name in ids(next(eight))]
    three.set_state(json.loads(json.dumps(eight.get_state())))
    for batch in three:
        assert len(batch.clip_ids) % 3 == 0
        served_ids += ids(batch)
    assert Counter(served_ids) == Counter({f"clip-{n}": 1 for n in range(40)})
