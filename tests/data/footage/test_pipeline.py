import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from videodit_data import video
from videodit_data.footage import decisions, shards, stages
from videodit_data.footage.build import build
from videodit_data.footage.config import BuildConfig, CaptionConfig, DuplicateConfig, Filters
from videodit_data.footage.decisions import digest
from videodit_data.footage.filters import Filter
from videodit_data.storage import manifest

from tests.data.footage.building import CONFIG, IN_MEMORY
from tests.data.footage.sources import RATE

Contents = Callable[[Path], dict[str, bytes]]
KEPT_CLIPS = ["more.mp4#0-30", "more.mp4#30-60", "one.mp4#0-30", "two.mp4#0-30", "two.mp4#30-60"]


def rebuild(footage: Path, built: Path, out: Path, config: BuildConfig = CONFIG, *options: str) -> manifest.Manifest:
    """Build again with the analyses of the first build."""
    cache = str(built.with_name("cache"))
    return build([str(footage)], out, config, cache=cache, beam_options=options or IN_MEMORY)


def test_every_clip_and_source_has_one_decision(built: Path):
    rows = {row["clip"] or (row["source"], row["start"]): row for row in decisions.read(built)}
    assert len(rows) == sum(1 for _ in decisions.read(built))
    fates = {key: (row["stage"], row["reason"]) for key, row in rows.items() if not row["kept"]}
    assert sorted(key for key, row in rows.items() if row["kept"]) == KEPT_CLIPS
    copy = ("duplicates", "near-duplicate of another clip")
    assert fates == {
        "dark.mp4#0-30": ("filter", "luminance below 0.1"),
        "still.mp4#0-30": ("filter", "static above 0.9"),
        ("short.mp4", 0): ("split", "too short for a clip"),
        "silent.mp4#0-30": ("captions", "no caption"),
        "sub/copy.mp4#0-30": copy,
        "sub/bright.mp4#0-30": copy,
        ("cut.mp4", None): ("read", "not readable as a video"),
        ("text.mp4", None): ("read", "not readable as a video"),
        ("notes.md", None): ("match", "not a video file"),
        ("gone.mp4", None): ("match", "named in captions.jsonl, but not there"),
    }
    dark = rows["dark.mp4#0-30"]
    assert dark["measure"] == "luminance" and dark["value"] < dark["threshold"] == 0.1
    assert rows["sub/copy.mp4#0-30"]["duplicate_of"] == "one.mp4#0-30"
    assert rows["two.mp4#30-60"]["start_seconds"] == pytest.approx(30 / RATE)


def test_every_frame_is_accounted_for(footage: Path, built: Path):
    frames = Counter()
    for row in decisions.read(built, ("source", "frames")):
        frames[row["source"]] += row["frames"] or 0
    for name, count in frames.items():
        if count:
            assert count == video.probe(footage / name).frames
    dataset = manifest.load(built)
    assert dataset.frames == sum(row["frames"] for row in decisions.read(built, ("frames", "kept")) if row["kept"])


def test_clips_are_cut_where_the_table_says_and_carry_their_captions(footage: Path, built: Path):
    records = {record.id: record for record in manifest.records(built)}
    second = records["two.mp4#30-60"]
    assert (second.captions, second.licence, second.source) == (("the second shot",), "unknown", "footage")
    assert (records["two.mp4#0-30"].captions, records["two.mp4#0-30"].licence) == (("the first shot",), "CC0-1.0")
    assert (second.frames, second.fps, second.height, second.width) == (30, RATE, 64, 96)
    source = video.decode(footage / "two.mp4", 30, 30).astype(float)
    assert abs(video.decode(second.video).astype(float) - source).mean() < 4


def test_shards_are_even_and_ordered_by_hash(built: Path):
    dataset = manifest.load(built)
    assert sorted(len(shard.frames) for shard in dataset.shards) == [1, 2, 2]
    assert [record.id for record in manifest.records(built)] == sorted(KEPT_CLIPS, key=digest)
    assert manifest.find_damaged_shards(built) == []


def test_dropped_clips_are_counted_by_reason_and_the_table_has_all(built: Path):
    left_out = {each.reason: (each.count, each.file) for each in manifest.load(built).left_out}
    assert left_out["duplicates: near-duplicate of another clip"] == (2, "sub/bright.mp4#0-30")
    assert left_out["split: too short for a clip"] == (1, "short.mp4")
    assert len(left_out) == 8


@pytest.mark.parametrize(
    "options",
    [
        ("--direct_running_mode=multi_threading", "--direct_num_workers=3"),
        pytest.param(("--direct_running_mode=multi_processing", "--direct_num_workers=2"), marks=pytest.mark.slow),
    ],
)
def test_workers_change_no_byte(footage: Path, built: Path, tmp_path: Path, contents: Contents, options):
    cache = () if "processing" in options[0] else (str(built.with_name("cache")),)
    build([str(footage)], tmp_path / "set", CONFIG, cache=cache[0] if cache else None, beam_options=options)
    assert contents(tmp_path / "set") == contents(built)


class _Ended(Exception):
    pass


@pytest.mark.parametrize(
    ("call", "analyzed"),
    [(3, True), *(pytest.param(*values, marks=pytest.mark.slow) for values in ((1, True), (13, True), (4, False)))],
)
def test_an_interrupted_build_resumes_and_ends_with_the_same_bytes(
    footage: Path,
    built: Path,
    tmp_path: Path,
    contents: Contents,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    analyzed: bool,
):
    calls, real = [], stages.call

    def counted(limits, function, path, name, **arguments):
        calls.append((function, name, arguments.get("start")))
        if len(calls) == call:
            raise _Ended
        return real(limits, function, path, name, **arguments)

    def run() -> None:
        cache = str(built.with_name("cache")) if analyzed else None
        build([str(footage)], tmp_path / "set", CONFIG, cache=cache, beam_options=IN_MEMORY)

    monkeypatch.setattr(stages, "call", counted)
    with pytest.raises(Exception, match="_Ended"):
        run()
    assert not (tmp_path / "set").exists()
    finished_calls = set(calls[:-1])
    call, calls[:] = 0, []
    run()
    assert not finished_calls & set(calls), "nothing is decoded twice"
    assert contents(tmp_path / "set") == contents(built)
    assert not (tmp_path / "set.partial").exists()


def test_shards_that_are_there_are_kept(
    footage: Path, built: Path, tmp_path: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
):
    partial = tmp_path / "set.partial"
    partial.mkdir()
    (partial / "info.json").write_text(json.dumps(manifest.load(built).info))
    for number in (0, 2):
        shutil.copy(built / f"clips-0000{number}-of-00003.array_record", partial)
    (partial / "thumbnails").mkdir()
    (partial / "thumbnails" / "half.jpg.tmp").write_text("left by a worker that was killed")
    written_shards, real = [], shards.write_shard
    monkeypatch.setattr(shards, "write_shard", lambda path, records: written_shards.append(real(path, records)))
    rebuild(footage, built, tmp_path / "set")
    assert len(written_shards) == 1 and contents(tmp_path / "set") == contents(built)


def test_a_finished_build_does_nothing_and_other_input_is_refused(
    footage: Path, built: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "call", None)
    before = contents(built)
    assert rebuild(footage, built, built) == manifest.load(built)
    with pytest.raises(ValueError, match=r"made from other input \(config differ\)"):
        rebuild(footage, built, built, dataclasses.replace(CONFIG, pictures=9))
    with pytest.raises(ValueError, match=r"made from other input \(input differ\)"):
        build([str(footage / "one.mp4")], built, CONFIG)
    assert contents(built) == before


def test_no_clip_kept_is_one_sentence_and_other_thresholds_decode_nothing_again(
    footage: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    nothing = dataclasses.replace(CONFIG, filters=Filters(luminance=Filter(least=0.99)), pictures=0)
    monkeypatch.setattr(stages, "call", None)
    with pytest.raises(ValueError, match=r"No clip of 11 sources is kept; .*set\.partial has the reason for each:\n"):
        rebuild(footage, built, tmp_path / "set", nothing)
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_sources_that_all_fail_are_told(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"No clip of 1 sources is kept; .*\n  a\.mp4: read: not readable as a video"):
        build([str(tmp_path / "raw")], tmp_path / "set", CONFIG, beam_options=IN_MEMORY)


def test_one_process_at_a_time_builds_a_data_set(footage: Path, tmp_path: Path):
    with manifest.lock(tmp_path / "set"), pytest.raises(ValueError, match="set is in use by"):
        build([str(footage)], tmp_path / "set", CONFIG, beam_options=IN_MEMORY)
    assert not list(tmp_path.iterdir())


def test_another_thing_at_the_place_stays(footage: Path, tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not a data set; choose another directory"):
        build([str(footage)], tmp_path / "set", CONFIG)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine.txt"]


def test_what_is_already_made_of_something_else_is_refused_before_the_input_is_read(footage, data_set, tmp_path):
    data_set(tmp_path / "set", [5])
    with pytest.raises(ValueError, match=r"already holds a data set made from other input \(config, made_by differ\)"):
        build([str(footage)], tmp_path / "set", CONFIG, progress=lambda *step: pytest.fail("it was read"))


@pytest.mark.slow
def test_whole_files_stay_byte_for_byte(footage: Path, tmp_path: Path):
    config = dataclasses.replace(
        CONFIG, recode=None, filters=Filters(), duplicates=DuplicateConfig(drop=False),
        captions=CaptionConfig(required=False), pictures=0,
    )  # fmt: skip
    names = ("one.mp4", "two.mp4", "silent.mp4")
    dataset = build([str(footage / name) for name in names], tmp_path / "set", config, beam_options=IN_MEMORY)
    records = {record.id: record for record in manifest.records(tmp_path / "set")}
    assert sorted(records) == ["one.mp4#0-30", "silent.mp4#0-30"] and dataset.clips == 2
    assert records["one.mp4#0-30"].video == (footage / "one.mp4").read_bytes()
    assert records["silent.mp4#0-30"].captions == ("",)
    reasons = {row["reason"] for row in decisions.read(tmp_path / "set") if row["clip"] and not row["kept"]}
    assert reasons == {"part of a file, and clips are not coded anew"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_killed_resumes(
    footage: Path, built: Path, tmp_path: Path, contents: Contents, number: signal.Signals
):
    program = (
        "from videodit_data.footage.build import build; from tests.data.footage.building import CONFIG\n"
        f"build([{str(footage)!r}], {str(tmp_path / 'set')!r}, CONFIG)"
    )
    for wait_for in ("analysis/*.json", "clips/*.json"):
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, cwd=Path.cwd())
        while not list((tmp_path / "set.partial").glob(wait_for)) and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait(30) != 0 and not (tmp_path / "set").exists()
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL, cwd=Path.cwd())
    assert contents(tmp_path / "set") == contents(built)
    shutil.rmtree(tmp_path / "set")
