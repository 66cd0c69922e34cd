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
    assert read_table(write(tmp_path / "captions.csv", csv)) == (expected, [])
    assert read_table(write(tmp_path / "captions.jsonl", jsonl)) == (expected, [])
    tsv = csv.replace('"two, cubes"', "two; cubes").replace(",", "\t").replace(";", ",")
    assert read_table(write(tmp_path / "captions.TSV", tsv)) == (expected, [])


def test_quotes_of_a_tsv_are_text(tmp_path: Path):
    table, odd = read_table(
        write(tmp_path / "t.tsv", 'file\tcaption\na.mp4\t"Hi" says x\nb.mp4\t"open\nc.mp4\tone\ttwo\n')
    )
    assert [table[name].texts for name in ("a.mp4", "b.mp4")] == [('"Hi" says x',), ('"open',)] and not odd
    assert "(line 4 of t.tsv: it has 3 cells, not 2)" in table["c.mp4"].reason


def test_empty_surplus_cells_cost_nothing(tmp_path: Path):
    assert read_table(write(tmp_path / "t.csv", "file,caption\na.mp4,one,\n"))[0] == {"a.mp4": Captions(("one",))}


@pytest.mark.parametrize("text", ["file,caption\na.mp4,one\n", '[{"file": "a.mp4"}]'])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, text: str):
    with pytest.raises(
        ValueError, match=r"t\.jsonl cannot be read as a caption table: no row names a file; .*\(line 1 of"
    ):
        read_table(write(tmp_path / "t.jsonl", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,text\na,b\n", "expected the columns file and caption, not"),
        ("", "expected the columns file and caption, not none"),
        ('"file,caption\n', r"line 1: expected the columns file and caption \(unexpected end of data"),
        ("file,caption,file\n", 'expected each column once; "file" stands there twice'),
    ],
)
def test_a_table_without_its_columns_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=rf"t\.csv.*{message}"):
        read_table(write(tmp_path / "t.csv", text))


LONG, DEEP = "cube " * 250_000, "[" * 100_000
ODD_OBJECTS = {
    '{"file": "odd.mp4", "caption": ': ("odd.mp4", "not JSON"),
    '{"file": "odd.mp4", "caption": "b"': ("odd.mp4", "not JSON"),
    '{"caption": "b", "file": "odd.mp4"} x': ("odd.mp4", "not JSON"),
    '{"file": "odd.mp4", "caption": "b", "caption": "c"}': ("odd.mp4", 'the key "caption" stands twice'),
    '{"file": "odd.mp4", "caption": "b", "file": "odd.mp4"}': ("odd.mp4", 'the key "file" stands twice'),
    '{"file": "odd.mp4", "caption": "b", "more": {"a": 1, "a": 2}}': ("odd.mp4", 'the key "a" stands twice'),
    '{"file": "odd.mp4", "caption": "b", "file": "good1.mp4"}': (None, 'the key "file" stands twice'),
    '{"more": {"file": "good1.mp4"}, "caption": ': (None, "not JSON"),
    '{"file": "odd.mp4", "more": ' + DEEP: ("odd.mp4", "nested too deeply"),
    DEEP: (None, "nested too deeply"),
    "{": (None, "not JSON"),
    "not a row at all": (None, "not JSON"),
    "\0": (None, "not JSON"),
    "5": (None, "expected a JSON object, not 5"),
    "null": (None, "expected a JSON object, not null"),
    "true": (None, "expected a JSON object, not true"),
    "[1, 2]": (None, "expected a JSON object, not a list of 2"),
    '"file"': (None, 'expected a JSON object, not "file"'),
    '{"caption": "b"}': (None, "it lacks 'file'"),
    '{"file": null, "caption": "b"}': (None, "expected a file name under 'file', not null"),
    '{"file": "", "caption": "b"}': (None, "expected a file name under 'file', not \"\""),
    '{"file": "odd.mp4", "caption": "caf\udce9"}': ("odd.mp4", "not UTF-8"),
    f'{{"file": "odd.mp4", "caption": "{LONG}"}}': ("odd.mp4", "a row of more than 1048576 characters"),
    f'{{"caption": "{LONG}", "file": "odd.mp4"}}': (None, "a row of more than 1048576 characters"),
}
ODD_LINES = {
    ",two,,": (None, "expected a file name under 'file'"),
    "odd.mp4": ("odd.mp4", "it has 1 cell, not 4"),
    "odd.mp4,one,5": ("odd.mp4", "it has 3 cells, not 4"),
    "odd.mp4,a red ball, rolling left,,": ("odd.mp4", "expected seconds under 'start'"),
    "odd.mp4,a red ball, rolling left,,x": (
        "odd.mp4",
        "it has 5 cells, not 4; a cell with a comma in it stands in quotes",
    ),
    'odd.mp4,"open': ("odd.mp4", "not CSV"),
    'odd.mp4,"a "red" cube"': ("odd.mp4", "not CSV"),
    '"odd.mp4,open': (None, "not CSV"),
    "odd.mp4,caf\udce9,,": ("odd.mp4", "not UTF-8"),
    f"odd.mp4,{LONG[:200_000]}": ("odd.mp4", "not CSV (field larger"),
    f"odd.mp4,{LONG},,": ("odd.mp4", "a row of more than 1048576 characters"),
    LONG: (None, "a row of more than 1048576 characters"),
    "odd.mp4,one,5,2": ("odd.mp4", "it starts at 5 s and stops at 2 s"),
}


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(
    ("suffix", "odd", "file", "reason"),
    [("jsonl", *case) for case in ((row, *of) for row, of in ODD_OBJECTS.items())]
    + [("csv", *case) for case in ((row, *of) for row, of in ODD_LINES.items())],
    ids=lambda value: value[:30].replace("\0", "0").replace("\udce9", "e9") if isinstance(value, str) else None,
)
def test_an_odd_row_is_named_by_its_line_and_costs_no_other(tmp_path, suffix, odd, file, reason, place):
    if suffix == "csv":
        head, rows = ["file,caption,start,stop"], [f'good{n}.mp4,"the {n}\nth",,' for n in range(3)]
    else:
        head, rows = [""], [json.dumps({"file": f"good{n}.mp4", "caption": f"the {n}\nth"}) for n in range(3)]
    path, lines = tmp_path / f"t.{suffix}", [*head, *rows[:place], odd, *rows[place:]]
    path.write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))
    table, nameless = read_table(path)
    named = {name: row for name, row in table.items() if isinstance(row, OddRow)}
    assert {name: row for name, row in table.items() if name not in named} == {
        f"good{n}.mp4": Captions((f"the {n} th",)) for n in range(3)
    }
    (row,) = [*named.values(), *nameless]
    number = 1 + "\n".join(["", *head, *rows[:place]]).count("\n")
    assert row.file == file and list(named) == [file] * (file is not None)
    assert row.reason.startswith(f"an odd row of its captions (line {number} of t.{suffix}: ")
    assert reason in row.reason and row.reason.isprintable() and row.reason.isascii() and len(row.reason) < 200


@pytest.mark.parametrize(
    "line", [*ODD_OBJECTS, *(f'{{"file": "good1.mp4", "caption": "b"{rest}' for rest in ("", ', "caption": 1}', "} x"))]
)
def test_rows_of_one_file_are_of_no_use_if_one_is_odd(tmp_path: Path, line: str):
    row = json.dumps({"file": "good1.mp4", "caption": "one"})
    (tmp_path / "t.jsonl").write_bytes(f"{row}\n{line}\n{row}".encode("utf-8", "surrogateescape"))
    table, nameless = read_table(tmp_path / "t.jsonl")
    is_odd = line not in ODD_OBJECTS
    assert isinstance(table["good1.mp4"], OddRow) == is_odd and len(table) + len(nameless) == 2 - is_odd


def test_what_has_odd_rows_alone_is_no_table(tmp_path: Path):
    with pytest.raises(ValueError, match=r"t\.jsonl, line 10001: more than 10000 odd rows name no file"):
        read_table(write(tmp_path / "t.jsonl", "x\n" * 20_000))


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
        ({"caption": "a", "file": "b" * 5000}, '"b{40}..." cannot be the name of a file'),
        ({"caption": "a", "file": "b\0.mp4"}, r'"b\\u0000.mp4" cannot be the name of a file'),
    ],
)
def test_an_odd_row_costs_its_file_alone(tmp_path: Path, values: dict, reason: str):
    rows = [{"file": "a.mp4", "caption": "one"}, {"file": "b.mp4"} | values, {"file": "b.mp4", "caption": "two"}]
    table, _ = read_table(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    odd = next(row for row in table.values() if isinstance(row, OddRow))
    assert table.pop("a.mp4") == Captions(("one",)) and odd.is_part == bool({"clip", "start", "stop"} & set(values))
    assert (
        re.search(rf"^an odd row of its captions \(line 2 of t\.jsonl: .*{reason}", odd.reason)
        and odd.file.isascii()
        and "\0" not in odd.file
    )


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
