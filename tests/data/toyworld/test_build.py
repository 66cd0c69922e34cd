"""Toyworld data sets: the same bytes on one process or two, resumable, self-describing."""

import numpy as np
import pytest
from videodit_data import video
from videodit_data.storage import manifest
from videodit_data.toyworld import Format, make_clip, world
from videodit_data.toyworld.build import Recipe, build

TINY = {"level": "hard", "seed": 7, "height": 16, "width": 24, "frames": 5, "fps": 8.0}


def test_small_clips_are_encoded_to_the_same_bytes_whatever_lies_in_memory(tmp_path):
    frames, rng = make_clip(1, "easy", 5, Format(32, 32, 9, 8.0)).frames, np.random.default_rng(0)
    encodings = set()
    for _ in range(40):
        litter = [rng.bytes(int(size)) for size in rng.integers(1, 60_000, 30)]
        video.encode(tmp_path / "clip.mp4", frames, 8.0)
        encodings.add((tmp_path / "clip.mp4").read_bytes())
        del litter
    assert len(encodings) == 1


def test_two_processes_write_what_one_writes_and_records_hold_the_clips(tmp_path):
    progress_calls = []
    one = build(tmp_path / "one", clips=5, shards=2, **TINY, progress=lambda *step: progress_calls.append(step))
    two = build(tmp_path / "two", clips=5, shards=2, processes=2, **TINY)
    assert [shard.sha256 for shard in one.shards] == [shard.sha256 for shard in two.shards]
    assert progress_calls[-1] == ("write", 5, 5)
    records = manifest.records(tmp_path / "one")
    for index in (0, 4):
        clip = make_clip(7, "hard", index, Format(16, 24, 5, 8.0))
        assert list(records[index].captions) == clip.captions
        assert records[index].truth == clip.truth
        decoded = video.decode(records[index].video)
        assert np.abs(decoded.astype(float) - clip.frames).mean() < 8
    assert one.info["world"] == world("hard")


def test_an_interrupted_build_keeps_its_finished_shards(tmp_path, monkeypatch):
    make, made_indices = Recipe.__call__, []

    def failing(self, index):
        made_indices.append(index)
        if made_indices.count(3) == 1 and index == 3:
            raise KeyboardInterrupt
        return make(self, index)

    monkeypatch.setattr(Recipe, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "toy", clips=4, shards=2, **TINY)
    assert not (tmp_path / "toy").exists()
    made_indices.append(3)
    resumed = build(tmp_path / "toy", clips=4, shards=2, **TINY)
    assert made_indices[-2:] == [2, 3] and made_indices.count(1) == 1
    monkeypatch.undo()
    straight = build(tmp_path / "straight", clips=4, shards=2, **TINY)
    assert resumed.shards == straight.shards


def test_bad_input_leaves_nothing_behind(tmp_path):
    for change in ({"level": "odd"}, {"height": 15}, {"frames": 0}, {"clips": 0}, {"processes": 0}, {"fps": -1.0}):
        with pytest.raises(ValueError):
            build(tmp_path / "toy", **({"clips": 2} | TINY | change))
    assert not list(tmp_path.iterdir())
