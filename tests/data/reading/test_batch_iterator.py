import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from videodit_data import video
from videodit_data.reading.batch import HostBatch
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest, records
from videodit_data.tokenizer import Tokenizer, train

CLIPS = 12


@pytest.fixture(scope="module")
def texts() -> TokenizedText:
    captions = [f"clip {n} gets brighter, a grey field, number {n}" for n in range(CLIPS)]
    return TokenizedText(Tokenizer(train(captions, 80)), 12)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, data_set: Callable[..., Path]) -> ReaderConfig:
    directory = data_set(tmp_path_factory.mktemp("loader") / "set", [20] * CLIPS, shards=2)
    return ReaderConfig((WeightedDataset(str(directory)),), OneSize(5, 16, 16), batch_size=4, num_threads=2)


def take(config: ReaderConfig, texts: TokenizedText, count: int, rows: Sequence[int] | None = None) -> list[HostBatch]:
    loader = BatchIterator(config, texts, local_batch_indices=range if rows is None else lambda size: rows)
    try:
        return list(islice(loader, count))
    finally:
        loader.close()


def equal(left: HostBatch, right: HostBatch) -> bool:
    arrays, others = left.arrays.arrays(), right.arrays.arrays()
    return (
        (left.clip_ids, left.captions) == (right.clip_ids, right.captions)
        and arrays.keys() == others.keys()
        and all(np.array_equal(arrays[name], others[name]) for name in arrays)
    )


def ids(batches: list[HostBatch]) -> list[str]:
    return [clip_id for batch in batches for clip_id in batch.clip_ids]


def test_batches_are_as_the_spec_says(config: ReaderConfig, texts: TokenizedText):
    loader = BatchIterator(config, texts)
    batch = next(loader)
    assert {name: (value.shape, value.dtype) for name, value in batch.arrays.arrays().items()} == {
        "video": ((4, 5, 16, 16, 3), np.uint8),
        "text_ids": ((4, 12), np.int32),
        "text_mask": ((4, 12), bool),
        "fps": ((4,), np.float32),
        "valid": ((4,), bool),
    }
    assert (batch.arrays.fps == 8).all() and batch.arrays.valid.all()
    assert np.array_equal(texts.tokenizer.encode(batch.captions, 12)[0], batch.arrays.text_ids)
    assert loader.clips_served == [4] and loader.epochs == {config.datasets[0].path: 4 / CLIPS}
    loader.close()


@pytest.mark.parametrize("change", [{"num_threads": 1}, {"num_threads": 5}, {"prefetch": 0}, {"prefetch": 7}])
def test_threads_and_prefetching_change_nothing(config: ReaderConfig, texts: TokenizedText, change: dict):
    expected, batches = take(config, texts, 5), take(replace(config, **change), texts, 5)
    assert all(map(equal, expected, batches))


def test_another_seed_gives_another_sequence(config: ReaderConfig, texts: TokenizedText):
    other = take(replace(config, seed=1), texts, 3)
    assert ids(other) != ids(take(config, texts, 3)) and sorted(set(ids(other))) == sorted(ids(other))


@pytest.mark.parametrize("consumed", [0, 1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_state_resumes_where_the_batches_stopped(
    config: ReaderConfig, texts: TokenizedText, consumed: int, threads: int
):
    config = replace(config, num_threads=threads)
    straight = take(config, texts, 7)
    loader = BatchIterator(config, texts)
    assert len(list(islice(loader, consumed))) == consumed
    state = json.loads(json.dumps(loader.get_state()))
    assert equal(next(loader), straight[consumed])  # taking a state disturbs nothing
    loader.set_state(state)  # going back in the same loader
    assert equal(next(loader), straight[consumed])
    loader.close()
    resumed = BatchIterator(config, texts)
    resumed.set_state(state)
    assert all(map(equal, straight[consumed:], islice(resumed, 7 - consumed)))
    resumed.close()


def test_a_state_resumes_on_another_number_of_processes(config: ReaderConfig, texts: TokenizedText):
    straight = take(config, texts, 4)
    loader = BatchIterator(config, texts)
    list(islice(loader, 3))
    parts = []
    for rows in ((0, 2), (1, 3)):
        part = BatchIterator(config, texts, local_batch_indices=lambda size, rows=rows: rows)
        part.set_state(loader.get_state())
        parts.append(next(part))
        part.close()
    loader.close()
    assert (parts[0].clip_ids[0], parts[1].clip_ids[0], parts[0].clip_ids[1], parts[1].clip_ids[1]) == straight[
        3
    ].clip_ids


@pytest.mark.parametrize("shares", [[(0, 1), (2, 3)], [(0, 3), (1, 2)], [(0,), (1,), (2,), (3,)]])
def test_several_processes_serve_the_batches_of_one(config: ReaderConfig, texts: TokenizedText, shares: list):
    alone = take(config, texts, 6)
    parts = [take(config, texts, 6, rows) for rows in shares]
    for step, batch in enumerate(alone):
        for row, clip_id in enumerate(batch.clip_ids):
            part, position = next(
                (p[step], rows.index(row)) for p, rows in zip(parts, shares, strict=True) if row in rows
            )
            assert part.clip_ids[position] == clip_id and part.captions[position] == batch.captions[row]
            assert np.array_equal(part.arrays.video[position], batch.arrays.video[row])
    for epoch in range(2):
        served_ids = [clip for part in parts for clip in ids(part[3 * epoch : 3 * epoch + 3])]
        assert sorted(served_ids) == [f"clip-{n:03d}" for n in range(CLIPS)]


def test_every_epoch_is_whole_and_in_another_order(config: ReaderConfig, texts: TokenizedText):
    served_ids = ids(take(replace(config, batch_size=8), texts, 6))  # batches run over the epochs' ends
    epochs = [served_ids[start : start + CLIPS] for start in range(0, 48, CLIPS)]
    assert all(sorted(epoch) == [f"clip-{n:03d}" for n in range(CLIPS)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_draws_differ_between_epochs(config: ReaderConfig, texts: TokenizedText, numbers: Callable):
    starts = {clip: set() for clip in (f"clip-{n:03d}" for n in range(CLIPS))}
    for batch in take(config, texts, 15):
        for clip_id, clip in zip(batch.clip_ids, batch.arrays.video, strict=True):
            window = numbers(clip)
            assert window == list(range(window[0], window[0] + 5))
            starts[clip_id].add(window[0])
    assert sum(len(clip_starts) > 1 for clip_starts in starts.values()) > CLIPS // 2


def test_captions_are_dropped_at_the_rate(config: ReaderConfig, texts: TokenizedText):
    config = replace(config, shapes=OneSize(1, 16, 16), batch_size=24, caption_dropout=0.25)
    batches = take(config, texts, 12)
    captions = [caption for batch in batches for caption in batch.captions]
    assert abs(captions.count("") / len(captions) - 0.25) < 0.1
    assert {caption.split()[0] for caption in captions if caption} == {"clip", "a"}
    empty = next(batch for batch in batches if "" in batch.captions)
    row = empty.captions.index("")
    assert empty.arrays.text_mask[row].sum() == 1 and empty.arrays.text_ids[row, 0] == 1


@pytest.mark.parametrize(
    ("fps", "expected"), [(4.0, [0, 2, 4, 6, 8]), (16.0, [0, 0, 1, 1, 2]), (3.0, [0, 3, 5, 8, 11])]
)
def test_another_rate_takes_the_right_frames(
    config: ReaderConfig, texts: TokenizedText, numbers: Callable, fps: float, expected: list[int]
):
    batch = take(replace(config.as_evaluation(), shapes=replace(config.shapes, fps=fps)), texts, 1)[0]
    assert all(numbers(clip) == expected for clip in batch.arrays.video) and (batch.arrays.fps == fps).all()


def test_evaluation_is_one_pass_in_order(config: ReaderConfig, texts: TokenizedText):
    loader = BatchIterator(replace(config.as_evaluation(), batch_size=8), texts)
    batches = list(loader)
    assert ids(batches) == [f"clip-{n:03d}" for n in range(CLIPS)] + [""] * 4
    assert [batch.arrays.valid.sum() for batch in batches] == [8, 4] and not batches[1].arrays.video[4:].any()
    assert batches[0].captions[3] == "clip 3 gets brighter"
    assert list(loader) == []
    loader.set_state(BatchIterator(loader.config, texts).get_state())
    assert all(map(equal, loader, batches))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_finish_a_pass_at_the_same_step(config: ReaderConfig, texts: TokenizedText, processes: int):
    config = replace(config.as_evaluation(), batch_size=8)
    parts = [take(config, texts, 9, range(p, 8, processes)) for p in range(processes)]
    assert {len(part) for part in parts} == {2}
    served_ids = [clip for part in parts for clip in ids(part)]
    assert sorted(served_ids) == [""] * 4 + [f"clip-{n:03d}" for n in range(CLIPS)]


def test_clips_that_are_too_short_are_counted_and_logged(
    tmp_path: Path, data_set: Callable[..., Path], texts: TokenizedText, caplog: pytest.LogCaptureFixture
):
    directory = data_set(tmp_path / "set", [9, 3, 5, 4, 17])
    config = ReaderConfig((WeightedDataset(str(directory)),), OneSize(5, 16, 16), batch_size=3).as_evaluation()
    with caplog.at_level(logging.WARNING):
        loader = BatchIterator(config, texts)
    assert loader.source.assignments[0].dropped == {"too short": 2}
    assert "2 of 5 clips are too short for 5 x 16 x 16 at 8 per second and are not served" in caplog.text
    assert ids(list(loader)) == ["clip-000", "clip-002", "clip-004"]
    with pytest.raises(ValueError, match="no clip fits 81 x 16 x 16 at 8 per second: 5 too short"):
        BatchIterator(replace(config, shapes=OneSize(81, 16, 16)), texts)


def test_latents_are_served_without_decoding(
    tmp_path: Path, data_set: Callable[..., Path], texts: TokenizedText, monkeypatch: pytest.MonkeyPatch
):
    source = manifest.records(data_set(tmp_path / "set", [20] * 3))
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 5, 4, 6, 8)).astype(np.float16).astype(np.float32)

    def code(numbers: range):
        for n in numbers:
            yield records.with_latent(source[n], means[n], -means[n], fps=8.0, frames=17, height=32, width=48)

    dataset = manifest.build(tmp_path / "latents", code, 3, info={"vae": "0" * 64})
    assert dataset.content == "latent"
    monkeypatch.setattr("videodit_data.reading.batch_builder.decode_pixels", None)
    config = ReaderConfig((WeightedDataset(str(tmp_path / "latents")),), OneSize(9, 32, 48), batch_size=3)
    loader = BatchIterator(config.as_evaluation(), texts)
    batch = next(loader)
    assert batch.arrays.video is None and batch.arrays.latent_mean.dtype == np.float16
    assert np.array_equal(batch.arrays.latent_mean, means[:, :3]) and np.array_equal(
        batch.arrays.latent_logvar, -means[:, :3]
    )
    for other in (OneSize(9, 32, 48, fps=4.0), OneSize(9, 16, 48)):
        with pytest.raises(ValueError, match=r"no clip fits 9 x .* per second: 3 encoded at another size or rate"):
            BatchIterator(replace(config, shapes=other), texts)


def test_a_damaged_clip_stops_with_its_name(tmp_path: Path, data_set: Callable[..., Path], texts: TokenizedText):
    good = manifest.records(data_set(tmp_path / "set", [9] * 3))
    bad = records.Record(**{**vars(good[1]), "video": b"nothing"})
    manifest.build(tmp_path / "bad", lambda part: [(good[0], bad, good[2])[n] for n in part], 3, info={})
    config = ReaderConfig((WeightedDataset(str(tmp_path / "bad")),), OneSize(5, 16, 16), batch_size=1)
    loader = BatchIterator(config.as_evaluation(), texts)
    assert next(loader).clip_ids == ("clip-000",)
    before = loader.get_state()
    for _ in range(2):
        with pytest.raises(video.VideoError, match="clip clip-001: not readable"):
            next(loader)
        assert loader.get_state() == before


def test_a_state_of_other_data_is_refused(config: ReaderConfig, texts: TokenizedText):
    loader = BatchIterator(config, texts)
    state = loader.get_state()
    with pytest.raises(ValueError, match="state of other data: rows, seed, texts differ"):
        loader.set_state(BatchIterator(replace(config, seed=3, batch_size=2), replace(texts, length=8)).get_state())
    shuffled_otherwise = state | {"of": {name: value for name, value in state["of"].items() if name != "order"}}
    with pytest.raises(ValueError, match="state of other data: order differ"):
        loader.set_state(shuffled_otherwise)
    with pytest.raises(ValueError, match="Not the state of a reader"):
        loader.set_state({"next_index": 3})
    assert loader.get_state() == state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"num_threads": 0}, "num_threads is 0: it must be at least 1"),
        ({"prefetch": -1}, "prefetch is -1: it must be at least 0"),
        ({"datasets": ()}, "at least one data set"),
        ({"caption_dropout": 1.5}, "a probability, not 1.5"),
        ({"augment": False}, "only with augment=True"),
        ({"seed": -1}, "seed must lie in"),
        ({"datasets": (WeightedDataset("nowhere"),)}, "nowhere is not a data set"),
    ],
)
def test_bad_options_are_refused(config: ReaderConfig, texts: TokenizedText, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        BatchIterator(replace(config, **change), texts)


def test_a_program_that_leaves_its_loader_open_ends_quietly(config: ReaderConfig):
    program = f"""
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.reader_config import *
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.tokenizer import NoTokenizer
config = ReaderConfig((WeightedDataset({config.datasets[0].path!r}),), OneSize(5, 16, 16), batch_size=4)
loader = BatchIterator(config, TokenizedText(NoTokenizer()))
print(next(loader).arrays.video.shape)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (process.returncode, process.stdout, process.stderr) == (0, "(4, 5, 16, 16, 3)\n", "")
