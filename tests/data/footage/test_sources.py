import json
import os
from pathlib import Path

import pytest
from videodit_data.caption_files import Captions, Row
from videodit_data.footage.sources import Input, Source, gather


def source(*rows: Row) -> Source:
    return Source("a.mp4", "/somewhere/a.mp4", "hash", "tests", "CC0-1.0", rows)


def row(text: str, **where) -> Row:
    return Row("a.mp4", Captions((text,)), **where)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    (root / "sub").mkdir(parents=True)
    for name in ("b.mp4", "a.mp4", "sub/c.mov", ".hidden.mp4"):
        (root / name).write_text(name)
    return root


def test_the_most_particular_captions_of_a_clip_are_taken():
    untimed, early, late = row("all"), row("early", stop=5.0), row("late", start=5.0)
    named = row("this", clip="a.mp4#0-9")
    every = source(untimed, early, late, named)
    assert every.captions_of("a.mp4#0-9", 0.0, 4.0).texts == ("this",)
    assert every.captions_of("a.mp4#9-18", 1.0, 4.0).texts == ("early",)
    assert every.captions_of("a.mp4#9-18", 4.5, 9.0).texts == ("late",)
    assert every.captions_of("a.mp4#9-18", 4.0, 6.0).texts == ("early", "late")
    assert source(untimed, row("end", start=90.0)).captions_of("x", 0.0, 9.0).texts == ("all",)
    assert source(early).captions_of("x", 9.0, 12.0).texts == ()
    assert every.captions_of("a.mp4#0-9", 0.0, 4.0).licence == "CC0-1.0"


def test_a_source_comes_back_from_its_line():
    one = source(row("all"), Row("a.mp4", Captions(("é", "two"), "web", "MIT"), "a.mp4#0-9", 0.5, None))
    assert Source.from_json(one.to_json()) == one and "\n" not in one.to_json()


def test_names_are_relative_to_what_is_matched_and_ordered(folder: Path):
    for inputs in ([str(folder)], [f"{folder}/**/*.m*"], [f"{folder}/"]):
        assert [each.name for each in gather(inputs).sources] == ["a.mp4", "b.mp4", "sub/c.mov"]
    assert [each.name for each in gather([f"{folder}/*.mp4", f"{folder}/sub"]).sources] == ["a.mp4", "b.mp4", "c.mov"]
    assert [each.name for each in gather([f"{folder}/b.mp4"]).sources] == ["b.mp4"]


def test_the_digest_knows_bytes_names_and_captions_but_not_the_place(folder: Path, tmp_path: Path):
    first = gather([str(folder)], source="x").digest
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert gather([str(moved)], source="x").digest == first
    (moved / "a.txt").write_text("a caption")
    second = gather([str(moved)], source="x").digest
    (moved / "b.mp4").write_text("other")
    assert len({first, second, gather([str(moved)], source="x").digest}) == 3
    assert Input((), ()).digest == Input((), ()).digest


def test_captions_come_from_files_and_tables_and_what_is_no_video_is_named(folder: Path):
    (folder / "a.txt").write_text("from a file\n")
    (folder / "b.json").write_text("{")
    (folder / "lonely.txt").write_text("nothing")
    (folder / "notes.md").write_text("notes")
    rows = [{"file": "a.mp4", "caption": "unused"}, {"file": "sub/c.mov", "caption": "one", "start": 1}]
    rows += [{"file": "gone.mp4", "caption": "x"}, {"file": "sub/c.mov", "caption": "two"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gathered_input = gather([str(folder)])
    texts = {each.name: [row.captions.texts for row in each.rows] for each in gathered_input.sources}
    assert texts == {"a.mp4": [("from a file",)], "sub/c.mov": [("one",), ("two",)]}
    reasons = dict(gathered_input.unusable)
    assert reasons.pop("b.mp4").startswith("b.json cannot be used")
    assert reasons == {
        "gone.mp4": "named in captions.jsonl, but not there",
        "lonely.txt": "a caption file without a video of its name",
        "notes.md": "not a video file",
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file": "a.mp4", "caption": "x", "start": "soon"}, "line 1: expected seconds under 'start', not 'soon'"),
        ({"file": "a.mp4", "caption": "x", "start": 3, "stop": 2}, "line 1: it starts at 3 s and stops at 2 s"),
        ({"file": "a.mp4", "caption": "x", "clip": 7}, "line 1: expected a clip's id under 'clip'"),
    ],
)
def test_a_table_that_cannot_be_read_names_the_line(folder: Path, row: dict, message: str):
    (folder / "captions.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        gather([str(folder)])


def test_input_that_is_none_or_not_clear_is_refused(folder: Path):
    with pytest.raises(ValueError, match=r"--input .*nowhere matches no video"):
        gather([str(folder / "nowhere")])
    (folder / "sub" / "a.mp4").write_text("another")
    with pytest.raises(ValueError, match=r"would both be called a\.mp4: build them apart"):
        gather([f"{folder}/*.mp4", f"{folder}/sub"])


def test_each_input_has_its_own_source_and_table_and_each_file_comes_once(folder: Path):
    (folder / "captions.csv").write_text("file,caption\na.mp4,of raw\n")
    other = folder.with_name("nasa")
    other.mkdir()
    for name in ("d.mp4", "e.mp4"):
        (other / name).write_text(name)
    (other / "captions.csv").write_text("file,caption\nd.mp4,of nasa\ngone.mp4,nothing\n")
    (other / "again.mp4").symlink_to(folder / "a.mp4")
    gathered_input = gather([str(folder), str(folder / "sub"), str(other), f"{other}/d.*"])
    assert [(each.name, each.source, [row.captions.texts for row in each.rows]) for each in gathered_input.sources] == [
        ("a.mp4", "raw", [("of raw",)]),
        ("b.mp4", "raw", []),
        ("d.mp4", "nasa", [("of nasa",)]),
        ("e.mp4", "nasa", []),
        ("sub/c.mov", "raw", []),
    ]
    assert gathered_input.unusable == (
        ("again.mp4", "the same file as a.mp4"),
        ("gone.mp4", "named in captions.csv, but not there"),
    )
    above = folder.parent / "captions.jsonl"
    for folder_ in (folder, other):
        (folder_ / "captions.csv").unlink()
    above.write_text('{"file": "b.mp4", "caption": "one"}\n{"file": "nasa/e.mp4", "caption": "two"}\n')
    texts = {each.name: each.rows for each in gather([str(folder), str(other)]).sources if each.rows}
    assert [(name, row.captions.texts) for name, (row,) in texts.items()] == [("b.mp4", ("one",)), ("e.mp4", ("two",))]


def test_names_of_any_bytes_are_reported_and_end_no_line(folder: Path):
    (folder / "odd\u2028name.mp4").write_text("odd")
    bad = os.fsencode(folder) + b"/bad\xff.mp4"
    for name in (bad, bad[:-4] + b".md"):
        with open(name, "w") as file:
            file.write("bad")
    gathered_input = gather([str(folder)])
    assert gathered_input.unusable == (("bad\\xff.md", "not a video file"), ("bad\\xff.mp4", "its name is not UTF-8"))
    lines = "".join(each.to_json() + "\n" for each in gathered_input.sources).encode()
    assert len(lines.decode().splitlines()) == len(gathered_input.sources) == 4
    renamed = os.fsencode(folder.parent) + b"/raw\xff"
    os.rename(folder, renamed)
    odd = gather([os.fsdecode(renamed)])
    assert odd.digest and {each.source for each in odd.sources} == {"raw\\xff"}
    assert Source.from_json(odd.sources[0].to_json()) == odd.sources[0]
