import json
import math
import re
from pathlib import Path

import pytest
from videodit_data.caption_files import Captions, OddRow, clean, find_table, read_sidecar, read_table


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        (".txt", "a cube\n\n  ein Würfel \n", Captions(("a cube", "ein Würfel"))),
        (".txt", "\ufeffa cube", Captions(("a cube",))),
        (".txt", "\n \n", Captions(())),
        (".json", '{"caption": "a cube"}', Captions(("a cube",))),
        (".json", '{"captions": ["a cube", " ", "a box"]}', Captions(("a cube", "a box"))),
        (
            ".json",
            '{"caption": "a cube", "source": "me", "licence": "CC0-1.0", "more": 1}',
            Captions(("a cube",), "me", "CC0-1.0"),
        ),
        (
            ".json",
            '{"caption": "a cube", "source": "\\ud800", "licence": "CC0\\u0007"}',
            Captions(("a cube",), None, "CC0"),
        ),
    ],
)
def test_a_file_of_the_videos_name_holds_its_captions(tmp_path: Path, suffix: str, text: str, expected: Captions):
    write(tmp_path / f"clip{suffix}", text)
    assert read_sidecar(tmp_path / "clip.mp4") == expected


def test_without_such_a_file_there_are_none(tmp_path: Path):
    assert read_sidecar(tmp_path / "clip.mp4") is None


def test_control_characters_become_spaces_and_joiners_stay_where_they_join():
    persian, family = "\u0645\u06cc\u200c\u0631\u0648\u062f", "\U0001f468\u200d\U0001f469"
    assert clean([persian, family, "a\x1b[31mcube\u200b\n", "\u200c \u200d", "\ud800"]) == (
        persian,
        family,
        "a [31mcube",
    )


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, "[1]", '{"text": "a"}', '{"captions": "a"}', '{"captions": ["a", 1]}', '"a"']
)
def test_another_json_is_refused_by_name(tmp_path: Path, text: str):
    write(tmp_path / "clip.json", text)
    with pytest.raises(ValueError, match=r"^clip\.json cannot be used: "):
        read_sidecar(tmp_path / "clip.mp4")


def test_text_that_is_not_utf8_is_refused_by_name(tmp_path: Path):
    (tmp_path / "clip.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"^clip\.txt cannot be used: "):
        read_sidecar(tmp_path / "clip.mp4")


def test_tables_may_have_several_rows_a_file(tmp_path: Path):
    expected = {"b.mp4": Captions(("two, cubes", "a box"), "me", None), "a.mp4": Captions(("one",))}
    csv = 'file,caption,source\nb.mp4,"two, cubes",\na.mp4,one,\nb.mp4,a box,me\n'
    jsonl = (
        '{"file": "b.mp4", "captions": ["two, cubes"]}\n\n{"file": "a.mp4", "caption": "one"}\n'
        '{"file": "b.mp4", "caption": "a box", "source": "me"}\n'
    )
    assert read_table(write(tmp_path / "captions.csv", csv)) == expected
    assert read_table(write(tmp_path / "captions.jsonl", jsonl)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "name,text\na,b\n", "expected the columns file and caption"),
        ("t.csv", "file,caption\na.mp4,one\n,two\n", r"t\.csv, line 3: expected a file name"),
        ("t.jsonl", '{"file": "a", "caption": "b"}\n{"file": ', r"t\.jsonl, line 2: not JSON"),
        ("t.jsonl", '{"caption": "b"}', r"t\.jsonl, line 1: expected a file name"),
        ("t.csv", "file,caption,file\n", 'expected each column once; "file" stands there twice'),
        (
            "t.jsonl",
            '{"file": "a", "caption": "b", "file": "c"}',
            r't\.jsonl, line 1: not JSON \(the key "file" stands',
        ),
        ("t.jsonl", '["a", "b"]', r"t\.jsonl, line 1: expected a file name"),
        ("t.jsonl", "\n" + "[" * 100_000, r"t\.jsonl, line 2: not JSON \(nested too deeply"),
        ("t.csv", f"file,caption\na.mp4,{'cube ' * 30_000}\n", r"t\.csv, line 2: not CSV \(field larger"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "expected 'caption', a text"),
        ({"caption": 3}, "expected 'caption', a text"),
        ({"captions": ["a", None]}, "a list of texts"),
        ({"caption": "a", "licence": ["CC0"]}, "expected a text under 'licence', not a list of 1"),
        ({"caption": "a", "clip": 5}, "expected a clip's id under 'clip', not 5"),
        ({"caption": "a", "clip": "\ud800"}, r'under \'clip\', not "\\ud800"'),
        ({"caption": "a", "start": True}, "expected seconds under 'start', not true"),
        ({"caption": "a", "start": math.nan}, "expected seconds under 'start', not NaN"),
        ({"caption": "a", "stop": "1e999"}, "expected seconds under 'stop', not \"1e999\""),
        ({"caption": "a", "start": 5, "stop": 2}, "it starts at 5 s and stops at 2 s"),
        ({"caption": "a", "file": "b\0.mp4"}, r'"b\\u0000.mp4" cannot be the name of a file'),
    ],
)
def test_an_odd_row_costs_its_file_alone(tmp_path: Path, values: dict, reason: str):
    rows = [{"file": "a.mp4", "caption": "one"}, {"file": "b.mp4"} | values, {"file": "b.mp4", "caption": "two"}]
    table = read_table(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    odd = next(row for row in table.values() if isinstance(row, OddRow))
    assert table.pop("a.mp4") == Captions(("one",)) and odd.is_part == bool({"clip", "start", "stop"} & set(values))
    assert (
        re.search(rf"^an odd row of its captions \(line 2 of t\.jsonl: .*{reason}", odd.reason)
        and odd.file.isascii()
        and "\0" not in odd.file
    )


@pytest.mark.parametrize(("name", "line"), [("t.csv", 'a.mp4,"caf\xe9"\n'), ("t.jsonl", '{"file": "caf\xe9"}\n')])
def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, name: str, line: str):
    rows = ["file,caption\n" if name == "t.csv" else "\n", *["b.mp4,one\n" if name == "t.csv" else "\n"] * 2000, line]
    (tmp_path / name).write_bytes("".join(rows).encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name}, line 2002: not UTF-8\.$"):
        read_table(tmp_path / name)


def test_the_table_is_the_given_one_or_in_the_folder_or_above(tmp_path: Path):
    folder = tmp_path / "videos"
    folder.mkdir()
    assert find_table(folder, None) is None
    above = write(tmp_path / "captions.jsonl", "")
    assert find_table(folder, None) == above
    inside = write(folder / "captions.csv", "")
    assert find_table(folder, None) == inside
    assert find_table(folder, above) == above
    write(folder / "captions.jsonl", "")
    with pytest.raises(ValueError, match=r"both captions\.jsonl and captions\.csv"):
        find_table(folder, None)
    with pytest.raises(ValueError, match="No caption table at"):
        find_table(folder, tmp_path / "none.csv")
