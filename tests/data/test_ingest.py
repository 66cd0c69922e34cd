import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videodit_data import ingest as module
from videodit_data import video
from videodit_data.ingest import ingest
from videodit_data.storage import manifest
from videodit_data.video.isolate import Verifier

Frames = Callable[..., np.ndarray]
Writer = Callable[..., Path]


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """Copy the template, for a test to change."""
    return Path(shutil.copytree(template, tmp_path / "videos"))


@pytest.fixture(scope="module")
def expected(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of the data set of such a folder, two clips per shard, built without an interruption."""
    out = tmp_path_factory.mktemp("expected") / "whole"
    ingest(template, out, clips_per_shard=2)
    return contents(out)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, numbered: Frames, write_file: Writer) -> Path:
    """Write valid clips of several containers, and files with every kind of fault."""
    root = tmp_path_factory.mktemp("template") / "videos"
    (root / "sub").mkdir(parents=True)
    video.encode(root / "a.mp4", numbered(9), 8)
    write_file(root / "b.gif", numbered(12, 16, 16), "gif", "gray")
    write_file(root / "sub" / "c.webm", numbered(10), "libvpx-vp9")
    write_file(root / "d.avi", numbered(10), "mpeg4")
    video_bytes = video.encode(None, numbered(24), 8)
    (root / "half.mp4").write_bytes(video_bytes[: len(video_bytes) // 2])
    (root / "zero.mp4").touch()
    (root / "text.mp4").write_text("not a video\n" * 100)
    (root / "silent.mp4").write_bytes(video_bytes)
    (root / "broken.mp4").write_bytes(video_bytes)
    (root / "broken.json").write_text("{")
    (root / "notes.md").write_text("notes")
    (root / "lonely.txt").write_text("a caption of nothing")
    (root / ".hidden.mp4").touch()
    for name in ("a", "half", "zero", "text", "sub/c"):
        (root / f"{name}.txt").write_text(f"first of {name}\nsecond of {name}\n")
    (root / "b.json").write_text(json.dumps({"captions": ["a gif"], "source": "the web", "licence": "CC0-1.0"}))
    (root / "captions.csv").write_text("file,caption\nd.avi,one\nd.avi,two\na.mp4,unused\ngone.mp4,nothing\n")
    return root


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_pictures_are_clips_of_one_frame(tmp_path: Path):
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    pictures = {name: rng.integers(0, 255, (24, 32, 3), np.uint8) for name in ("a.png", "b.webp", "%02d.png")}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name, lossless=True)
        (folder / name).with_suffix(".txt").write_text(f"noise {name}")
    Image.fromarray(pictures["a.png"]).save(folder / "01.png")  # what the pattern would name; without a caption
    dataset = ingest(folder, tmp_path / "set")
    assert [item.file for item in dataset.left_out] == ["01.png"]
    for record in manifest.records(tmp_path / "set"):
        assert (record.frames, record.height, record.width) == (1, 24, 32)
        assert np.array_equal(video.decode(record.video)[0], pictures[record.id])


def test_names_that_are_not_utf_8_are_reported(tmp_path: Path, numbered: Frames):
    (tmp_path / "videos").mkdir()
    for name in (b"good", b"bad\xff"):
        stem = os.fsencode(tmp_path / "videos") + b"/" + name
        Path(os.fsdecode(stem + b".mp4")).write_bytes(video.encode(None, numbered(3), 8))
        Path(os.fsdecode(stem + b".txt")).write_text("a caption")
        Path(os.fsdecode(stem + b".md")).write_text("notes")
    left_out = ingest(tmp_path / "videos", tmp_path / "set").left_out
    assert [item.file for item in left_out] == ["bad\\xff.md", "bad\\xff.mp4", "good.md"]
    assert left_out[1].reason == "its name is not UTF-8"


def test_good_files_become_records_and_others_are_named_with_a_reason(folder: Path, tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    dataset = ingest(folder, tmp_path / "set", clips_per_shard=3, licence="CC-BY-4.0")
    records = {record.id: record for record in manifest.records(tmp_path / "set")}
    assert list(records) == ["a.mp4", "b.gif", "d.avi", "sub/c.webm"]
    assert [len(shard.frames) for shard in dataset.shards] == [2, 2]
    assert records["a.mp4"].captions == ("first of a", "second of a")
    assert records["d.avi"].captions == ("one", "two")
    assert records["d.avi"].caption_sources == ("file", "file")
    gif = records["b.gif"]
    assert (gif.source, gif.licence, gif.captions) == ("the web", "CC0-1.0", ("a gif",))
    assert (gif.frames, gif.fps, gif.height, gif.width) == (12, 8.0, 16, 16)
    for name, record in records.items():
        data = (folder / name).read_bytes()
        assert record.video == data and record.sha256 == hashlib.sha256(data).hexdigest()
    assert {(o.source, o.licence, o.clips) for o in dataset.origins} == {
        ("videos", "CC-BY-4.0", 3),
        ("the web", "CC0-1.0", 1),
    }
    reasons = {item.file: item.reason for item in dataset.left_out}
    assert reasons.pop("half.mp4").startswith("not readable as a video")
    assert reasons.pop("zero.mp4").startswith("not readable as a video")
    assert reasons.pop("text.mp4").startswith("not readable as a video")
    assert reasons.pop("broken.mp4").startswith("broken.json cannot be used")
    assert reasons.pop("notes.md").startswith("not a video file")
    assert reasons.pop("lonely.txt").startswith("a caption file without a video")
    assert reasons == {"silent.mp4": "no caption", "gone.mp4": "named in captions.csv, but not there"}
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("stage", "count", "threads"), [("hash", 2, 1), ("verify", 2, 3), ("verify", 7, 1), ("write", 3, 3)]
)
def test_an_interrupted_run_resumes_and_ends_with_the_same_bytes(
    folder: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    count: int,
    threads: int,
):
    decoded = []

    class Counting(Verifier):
        def __call__(self, path: Path, *, name: str = "") -> video.VideoInfo:
            decoded.append(name)
            return super().__call__(path, name=name)

    def stop(*step: object) -> None:
        if step[:2] == (stage, count):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Verifier", Counting)
    with pytest.raises(KeyboardInterrupt):
        ingest(folder, tmp_path / "set", clips_per_shard=2, threads=threads, progress=stop)
    assert not (tmp_path / "set").exists()
    journal_lines = len((tmp_path / "set.partial" / "journal.jsonl").read_text().splitlines()) if stage != "hash" else 0
    decoded.clear()
    ingest(folder, tmp_path / "set", clips_per_shard=2, threads=threads)
    assert len(decoded) == 7 - journal_lines
    assert contents(tmp_path / "set") == expected
    assert not (tmp_path / "set.partial").exists()


def test_a_journal_line_cut_short_is_forgotten(folder: Path, expected: dict[str, bytes], tmp_path: Path):
    def stop(*step: object) -> None:
        if step[:2] == ("verify", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(folder, tmp_path / "set", clips_per_shard=2, progress=stop)
    journal = tmp_path / "set.partial" / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20])
    ingest(folder, tmp_path / "set", clips_per_shard=2)
    assert contents(tmp_path / "set") == expected


def test_a_second_run_does_nothing_and_other_input_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = ingest(folder, tmp_path / "set")
    before = contents(tmp_path / "set")
    monkeypatch.setattr(module, "Verifier", None)
    assert ingest(folder, tmp_path / "set") == first
    (folder / "a.txt").write_text("another caption")
    with pytest.raises(ValueError, match=r"made from other input \(input differ\)"):
        ingest(folder, tmp_path / "set")
    assert contents(tmp_path / "set") == before


def test_one_process_at_a_time_builds_a_data_set(folder: Path, tmp_path: Path):
    with manifest.lock(folder / "set"), pytest.raises(ValueError, match="set is in use by"):
        ingest(folder, folder / "set")
    assert not list(folder.glob("set*"))


def test_the_data_set_may_lie_inside_the_folder(folder: Path):
    first = ingest(folder, folder / "set")
    assert ingest(folder, folder / "set") == first


@pytest.mark.parametrize("where", ["inside", "above", "given", "given from afar"])
def test_a_table_may_lie_anywhere(tmp_path: Path, numbered: Frames, where: str):
    (tmp_path / "videos").mkdir()
    (tmp_path / "afar").mkdir()
    video.encode(tmp_path / "videos" / "a.mp4", numbered(5), 8)
    table, file = {
        "inside": (tmp_path / "videos" / "captions.jsonl", "a.mp4"),
        "above": (tmp_path / "captions.jsonl", "a.mp4"),
        "given": (tmp_path / "afar" / "mine.jsonl", "a.mp4"),
        "given from afar": (tmp_path / "afar" / "mine.jsonl", "../videos/a.mp4"),
    }[where]
    table.write_text(json.dumps({"file": file, "caption": "a cube"}) + "\n")
    dataset = ingest(tmp_path / "videos", tmp_path / "set", captions=table if where.startswith("given") else None)
    assert (dataset.clips, dataset.left_out) == (1, ())
    assert manifest.records(tmp_path / "set")[0].captions == ("a cube",)


def test_a_folder_without_usable_clips_says_why(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "videos" / "a.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"no video that can be used; 1 files were left out:\n  a\.mp4: not readable"):
        ingest(tmp_path / "videos", tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


def test_bad_requests_write_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="is not a folder of videos"):
        ingest(tmp_path / "nowhere", tmp_path / "set")
    with pytest.raises(ValueError, match="at least one clip"):
        ingest(tmp_path, tmp_path / "set", clips_per_shard=0)
    with pytest.raises(ValueError, match="No caption table"):
        ingest(tmp_path, tmp_path / "set", captions=tmp_path / "none.csv")
    assert not list(tmp_path.iterdir())


def test_a_file_that_changes_meanwhile_is_found_out(folder: Path, tmp_path: Path):
    def change(*step: object) -> None:
        if step[:2] == ("verify", 7):
            (folder / "b.gif").write_bytes(b"other")

    with pytest.raises(ValueError, match=r"b\.gif changed while it was ingested"):
        ingest(folder, tmp_path / "set", progress=change)


def test_real_footage_with_the_table_above_it(real_clips: Path, tmp_path: Path):
    (tmp_path / "videos").mkdir()
    for name in ("hiker.mp4", "nasa_13013.mp4"):
        shutil.copy(real_clips / name, tmp_path / "videos" / name)
    table = (real_clips.parent / "captions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "captions.jsonl").write_text("".join(line for line in table if "hiker" in line or "nasa" in line))
    dataset = ingest(tmp_path / "videos", tmp_path / "set")
    assert (dataset.clips, dataset.left_out) == (2, ())
    hiker = manifest.records(tmp_path / "set")[0]
    assert (hiker.frames, hiker.height, hiker.width, hiker.fps) == (49, 480, 720, 8.0)
    assert "mountain ridge" in hiker.captions[0]


def test_an_odd_row_of_a_table_costs_its_clip_by_name(folder: Path, tmp_path: Path):
    rows = [
        {"file": "d.avi", "caption": "one"},
        {"file": "silent.mp4", "caption": 5},
        {"file": "silent.mp4", "caption": "a good row of the same file"},
        {"file": "d\x00.avi", "caption": "nobody's"},
        {"file": "\ud800.avi", "caption": "nobody's"},
        {"file": "long" * 100 + ".avi", "caption": "nobody's"},
    ]
    (folder / "captions.csv").unlink()
    (folder / "captions.jsonl").write_text("\n".join([*map(json.dumps, rows), "5", '{"file": "broken.mp4"']))
    dataset = ingest(folder, tmp_path / "set")
    assert "d.avi" in [record.id for record in manifest.records(tmp_path / "set")]
    reasons = {item.file: item.reason for item in dataset.left_out}
    odd = "an odd row of its captions (line {} of captions.jsonl: {})"
    assert reasons["silent.mp4"] == odd.format(2, "expected 'caption', a text, or 'captions', a list of texts")
    for number, name in ((4, r'"d\u0000.avi"'), (5, r'"\ud800.avi"')):
        assert reasons[name] == odd.format(number, f"{name} cannot be the name of a file")
    assert reasons["long" * 100 + ".avi"] == "named in captions.jsonl, but not there"
    assert reasons["captions.jsonl"] == odd.format(7, "expected a JSON object, not 5")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "a.mp4"}', "it lacks the key 'sha256'"),
        ('{"file": 5, "sha256": "' + "0" * 64 + '", "fact": "truncated"}', "file is 5; expected a text"),
        ('{"file": "a", "file": "b"}', 'the key "file" stands twice'),
        ("\xff", "not UTF-8|not JSON"),
    ],
)
def test_a_damaged_line_of_the_journal_is_named(folder: Path, tmp_path: Path, line: str, message: str):
    journal = tmp_path / "set.partial" / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=rf"journal\.jsonl, line 1: .*({message})"):
        ingest(folder, tmp_path / "set")


def test_nothing_of_a_build_is_removed_without_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_text("no video")
    (tmp_path / "in" / "a.txt").write_text("a caption")
    removed = []

    def remove(path: Path) -> None:
        with pytest.raises(ValueError, match="is in use by"), manifest.lock(tmp_path / "set"):
            pass
        removed.append(path)

    monkeypatch.setattr(module.shutil, "rmtree", remove)
    with pytest.raises(ValueError, match="holds no video that can be used"):
        ingest(tmp_path / "in", tmp_path / "set")
    assert removed == [manifest.partial_directory(tmp_path / "set")]


def test_what_another_process_has_built_meanwhile_is_taken(
    template: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "set"
    ingest(template, out, clips_per_shard=2)
    look, looks = module.already_built, iter([lambda *args: None])  # the first, before the other process has ended
    monkeypatch.setattr(module, "already_built", lambda *args: next(looks, look)(*args))
    ingest(template, out, clips_per_shard=2)
    assert contents(out) == expected
    assert os.listdir(tmp_path) == ["set"]
