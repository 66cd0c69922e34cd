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
    ("row", "reason", "names"),
    [
        ({"caption": "x", "start": "soon"}, """expected seconds under 'start', not "soon\"""", ["a.mp4", "b.mp4"]),
        ({"caption": "x", "start": 3, "stop": 2}, "it starts at 3 s and stops at 2 s", ["a.mp4", "b.mp4"]),
        ({"caption": "x", "clip": 7}, "expected a clip's id under 'clip', not 7", ["a.mp4", "b.mp4"]),
        ({"caption": 5}, "expected 'caption', a text, or 'captions', a list of texts", ["b.mp4"]),
    ],
)
def test_an_odd_row_costs_its_part_or_its_source(folder: Path, row: dict, reason: str, names: list[str]):
    rows = [{"file": "a.mp4"} | row, {"file": "b.mp4", "caption": "y"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gathered = gather([str(folder / "*.mp4")])
    assert [each.name for each in gathered.sources] == names
    assert gathered.unusable == (("a.mp4", f"an odd row of its captions (line 1 of captions.jsonl: {reason})"),)
    assert gathered.sources[-1].rows == (Row("b.mp4", Captions(("y",))),)


def test_a_row_that_names_no_file_costs_none(folder: Path):
    row = json.dumps({"file": "b.mp4", "caption": "y"})
    (folder / "captions.jsonl").write_text(f'{{"caption": "x"\n{row}\n')
    gathered = gather([str(folder / "*.mp4")])
    assert gathered.sources[-1].rows == (Row("b.mp4", Captions(("y",))),) and len(gathered.sources) == 2
    ((file, reason),) = gathered.unusable
    assert file == "captions.jsonl" and reason.startswith("an odd row of its captions (line 1 of captions.jsonl: not ")


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
    inputs = [str(folder), str(folder / "sub"), str(other), f"{other}/d.*"]
    gathered_input = gather(inputs, follow_links=True)
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


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/**/*.mp4", "/**/*"])
@pytest.mark.parametrize("follow_links", [False, True])
def test_links_out_of_the_footage_are_named_unless_they_are_followed(folder: Path, pattern: str, follow_links: bool):
    other = folder.with_name("other")
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "d.mp4").write_text("d")
    (folder / "loop").symlink_to(folder)
    (folder / "sub" / "loop").symlink_to("..")
    (folder / "dir.mp4").symlink_to(other)  # a folder
    (folder / "out.mp4").symlink_to(other / "deep" / "d.mp4")
    (folder / "proc.mp4").symlink_to("/proc/self/environ")
    (folder / "a.txt").symlink_to("/proc/self/environ")
    os.mkfifo(folder / "pipe.mp4")
    found = gather([f"{folder}{pattern}"], follow_links=follow_links)
    names, reasons = [each.name for each in found.sources], dict(found.unusable)
    deep = pattern != "/*"
    assert {"b.mp4"} <= set(names) and "proc.mp4" not in names and "pipe.mp4" not in names
    assert "a.txt cannot be used: a link into /proc" in reasons["a.mp4"]
    assert reasons["proc.mp4"] == "a link into /proc, which is never read"
    assert reasons["pipe.mp4"] == "a pipe, not a regular file"
    if follow_links:
        assert len({"out.mp4", "dir.mp4/deep/d.mp4"} & set(names)) == 1  # one file, by one of its names
        assert not deep or reasons.get("loop") == "a link to a folder that is read already"
    else:
        assert "out.mp4" not in names and "a link out of its folder" in reasons["out.mp4"]
        assert "a link out of its folder" in reasons["dir.mp4"] and "only --follow-links reads it" in reasons["loop"]


def test_a_file_that_is_named_is_read_wherever_its_link_leads(folder: Path):
    other = folder.with_name("other")
    other.mkdir()
    (other / "link.mp4").symlink_to(folder / "a.mp4")
    assert [each.name for each in gather([str(other / "link.mp4")]).sources] == ["link.mp4"]
    os.mkfifo(other / "pipe.mp4")
    with pytest.raises(ValueError, match="matches no video"):
        gather([str(other / "pipe.mp4")])


@pytest.mark.parametrize("target", ["/proc/self/environ", "../elsewhere.csv", "nowhere"])
def test_a_table_that_is_found_lies_in_its_folder_and_one_that_is_requested_anywhere(folder: Path, target: str):
    (folder.parent / "elsewhere.csv").write_text("file,caption\na.mp4,one\n")
    (folder / "captions.csv").symlink_to(target)
    if target == "nowhere":
        assert dict(gather([str(folder)]).unusable)["captions.csv"].startswith("a link to nothing")
        return
    with pytest.raises(ValueError, match=r"captions\.csv cannot be read as a caption table: a link"):
        gather([str(folder)])
    if target.startswith(".."):
        for options in ({"captions": str(folder / "captions.csv")}, {"follow_links": True}):
            assert gather([str(folder)], **options).sources[0].rows[0].captions.texts == ("one",)
