import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from videodit_data.storage import manifest, records


def record(number: int) -> records.Record:
    return records.from_video(
        f"clip-{number}",
        bytes([number]) * 50,
        ["a cube"],
        fps=8.0,
        height=32,
        width=48,
        frames=9 + number,
        source="tests" if number else "elsewhere",
        licence="CC0-1.0",
    )


def make(numbers: range) -> Iterator[records.Record]:
    return map(record, numbers)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_data_set_tells_what_it_holds(tmp_path: Path):
    progress_calls = []
    left_out = [manifest.LeftOut("b.mp4", "truncated")]
    dataset = manifest.build(
        tmp_path / "set",
        make,
        5,
        shards=2,
        name="toy",
        info={"seed": 1, "sizes": (1, 2)},
        left_out=left_out,
        progress=lambda *step: progress_calls.append(step),
    )
    assert manifest.load(tmp_path / "set") == dataset
    assert (dataset.content, dataset.clips, dataset.frames, dataset.seconds) == ("video", 5, 55, 55 / 8)
    assert dataset.bytes == sum(path.stat().st_size for path in (tmp_path / "set").glob("*.array_record"))
    assert [shard.frames for shard in dataset.shards] == [(9, 10), (11, 12, 13)]
    assert dataset.origins == (
        manifest.Origin("elsewhere", "CC0-1.0", 1),
        manifest.Origin("tests", "CC0-1.0", 4),
    )
    assert dataset.left_out == tuple(left_out) and dataset.info == {"seed": 1, "sizes": [1, 2]}
    assert progress_calls == [("write", count, 5) for count in range(1, 6)]
    counts = json.loads((tmp_path / "set" / "manifest.json").read_text())["counts"]
    assert counts == {"clips": 5, "frames": 55, "seconds": 55 / 8, "bytes": dataset.bytes}
    assert list(manifest.records(tmp_path / "set")) == [record(number) for number in range(5)]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert manifest.find_damaged_shards(tmp_path / "set") == []


def test_an_interrupted_build_resumes_with_the_shards_it_has(tmp_path: Path):
    reference = tmp_path / "whole"
    manifest.build(reference, make, 7, shards=3, info={"seed": 1})
    requested = []

    def stopping(numbers: range) -> Iterator[records.Record]:
        for number in numbers:
            if number == 3:
                raise KeyboardInterrupt
            yield record(number)

    def counting(numbers: range) -> Iterator[records.Record]:
        requested.append(numbers)
        return make(numbers)

    with pytest.raises(KeyboardInterrupt):
        manifest.build(tmp_path / "set", stopping, 7, shards=3, info={"seed": 1})
    assert not (tmp_path / "set").exists()
    with pytest.raises(ValueError, match=r"an unfinished one lies in .*set\.partial"):
        manifest.load(tmp_path / "set")
    manifest.build(tmp_path / "set", counting, 7, shards=3, info={"seed": 1})
    assert requested == [range(2, 4), range(4, 7)]
    assert contents(tmp_path / "set") == contents(reference)
    assert not (tmp_path / "set.partial").exists()


def test_unfinished_shards_of_other_input_are_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def stopping(numbers: range) -> Iterator[records.Record]:
        yield from make(numbers)
        if numbers.start:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manifest.build(tmp_path / "set", stopping, 4, shards=2, info={"seed": 1})
    with caplog.at_level(logging.WARNING):
        manifest.build(tmp_path / "set", lambda part: (record(9 - n) for n in part), 4, shards=2, info={"seed": 2})
    assert "other input are discarded" in caplog.text
    assert [item.id for item in manifest.records(tmp_path / "set")] == ["clip-9", "clip-8", "clip-7", "clip-6"]


def test_unfinished_shards_of_unknown_input_are_not_kept(tmp_path: Path):
    """Check an interruption before the last step, or a missing note: shards of other input are never kept."""
    directory = tmp_path / "set"
    partial = manifest.start(directory, {"seed": 1})
    records.write_shard(partial / records.shard_name("clips", 0, 1), make(range(2)))
    (partial / "info.json").unlink()
    manifest.build(directory, lambda numbers: map(record, (n + 5 for n in numbers)), 2, info={"seed": 2})
    assert [item.id for item in manifest.records(directory)] == ["clip-5", "clip-6"]
    assert sorted(path.name for path in directory.iterdir()) == ["clips-00000-of-00001.array_record", "manifest.json"]


@pytest.mark.parametrize("name", ["../clips.array_record", "/tmp/clips.array_record", "a/clips.array_record"])
def test_shards_lie_in_their_data_set(tmp_path: Path, name: str):
    manifest.build(tmp_path / "set", make, 2, info={})
    file = tmp_path / "set" / "manifest.json"
    file.write_text(file.read_text().replace("clips-00000-of-00001.array_record", name))
    with pytest.raises(ValueError, match="is no name there"):
        manifest.load(tmp_path / "set")


def test_a_finished_data_set_is_neither_made_again_nor_overwritten(tmp_path: Path):
    first = manifest.build(tmp_path / "set", make, 3, info={"seed": 1, "level": "easy"})
    before = contents(tmp_path / "set")

    def never(numbers: range) -> Iterator[records.Record]:
        raise AssertionError("made again")

    assert manifest.build(tmp_path / "set", never, 3, info={"seed": 1, "level": "easy"}) == first
    with pytest.raises(ValueError, match=r"made from other input \(seed differ\)"):
        manifest.build(tmp_path / "set", never, 3, info={"seed": 2, "level": "easy"})
    assert contents(tmp_path / "set") == before


def test_what_is_no_data_set_is_left_alone(tmp_path: Path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(ValueError, match="exists and is not a data set"):
        manifest.build(tmp_path / "letters", make, 3, info={})
    assert contents(tmp_path / "letters") == {"a.txt": b"dear"}
    (tmp_path / "empty").mkdir()
    assert manifest.build(tmp_path / "empty", make, 3, info={}).clips == 3


@pytest.mark.parametrize(("clips", "shards"), [(0, 1), (2, 3), (2, 0)])
def test_empty_shards_are_refused(tmp_path: Path, clips: int, shards: int):
    with pytest.raises(ValueError, match="at least one clip a shard"):
        manifest.build(tmp_path / "set", make, clips, shards=shards, info={})
    assert not list(tmp_path.iterdir())


def test_a_maker_that_makes_too_few_is_found_out(tmp_path: Path):
    with pytest.raises(ValueError, match="4 records were to be made from number 0 on, not 2"):
        manifest.build(tmp_path / "set", lambda part: make(part[:2]), 4, info={})


def test_videos_and_latents_do_not_mix(tmp_path: Path):
    latent = np.zeros((3, 4, 6, 8), np.float32)
    mixed = [record(0), records.with_latent(record(1), latent, latent, fps=8.0, frames=9, height=32, width=48)]
    with pytest.raises(ValueError, match="videos or latents, not both"):
        manifest.build(tmp_path / "set", lambda part: [mixed[n] for n in part], 2, info={})


def test_a_directory_that_is_no_data_set_says_what_was_expected(tmp_path: Path):
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"is not a data set: expected a directory with a manifest\.json\.$"):
            manifest.load(directory)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', '{"format": "videodit-data", "version": 99}'])
def test_another_manifest_is_refused(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="not a manifest that this version can read"):
        manifest.load(tmp_path)


def test_damage_is_found(tmp_path: Path):
    manifest.build(tmp_path / "set", make, 4, shards=2, info={})
    shard = tmp_path / "set" / "clips-00001-of-00002.array_record"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert manifest.find_damaged_shards(tmp_path / "set") == [shard.name]
    shard.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"clips-00001-of-00002\.array_record has \d+ bytes, not \d+"):
        manifest.load(tmp_path / "set")
    shard.unlink()
    with pytest.raises(ValueError, match=r"clips-00001-of-00002\.array_record is missing"):
        manifest.load(tmp_path / "set")


def test_one_process_at_a_time_builds_a_data_set(tmp_path: Path):
    with manifest.lock(tmp_path / "set"):
        with pytest.raises(
            ValueError, match=r"set is in use by .*, process \d+, since .*: wait for its end or stop it"
        ):
            manifest.build(tmp_path / "set", make, 5, info={})
        assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]


def test_what_another_process_has_built_in_the_meantime_is_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = manifest.lock

    def wait(directory: Path):
        monkeypatch.undo()
        manifest.build(directory, make, 5, info={})
        return lock(directory)

    monkeypatch.setattr(manifest, "lock", wait)
    assert manifest.build(tmp_path / "set", lambda numbers: iter(()), 5, info={}).clips == 5
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
