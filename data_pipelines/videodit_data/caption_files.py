"""Captions in files next to video files: a .txt or .json of the same name, or one table for the whole folder."""

import csv
import io
import json
import math
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videodit_data.boundary.input_files import MOST_TEXT, FileOpener, open_regular, read_text
from videodit_data.boundary.typed_json import load_json, shorten

SIDECARS = (".json", ".txt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLES = ("captions.jsonl", "captions.csv", "captions.tsv")
# What has a longer row, or more odd rows that name no file, is no table.
MAX_ROW_CHARACTERS, MAX_ROWS_WITHOUT_FILE = 2**26, 10_000
JOINERS = "\u200c\u200d"  # no pictures of their own, but part of how Persian, Indic words and emoji are written


@dataclass(frozen=True)
class Captions:
    """The captions of one file and, if known, its source and licence."""

    texts: tuple[str, ...]
    source: str | None = None
    licence: str | None = None


def read_sidecar(video: Path, open_file: FileOpener = open_regular) -> Captions | None:
    """Read captions from VIDEO.json or else VIDEO.txt, which `open_file` opens; None when there is neither.

    The .json is {"caption": ...} or {"captions": [...]}, with "source" and "licence" if wanted; the .txt holds one
    caption a line. ValueError when the file cannot be read so, or is larger than `MOST_TEXT` bytes.
    """
    for suffix in SIDECARS:
        path = video.with_suffix(suffix)
        if os.path.lexists(path) and not path.is_dir():
            try:
                with open_file(path) as file:
                    text = read_text(file)
                if suffix == ".txt":
                    return Captions(clean(text.splitlines()))
                return _from_mapping(load_json(text, "it"))
            except ValueError as error:
                raise ValueError(f"{path.name} cannot be used: {str(error).removesuffix('.')}") from error
    return None


@dataclass(frozen=True)
class Row:
    """A row of a table: captions of a whole file, of a clip of it, or of its seconds `start` to `stop`."""

    file: str
    captions: Captions
    clip: str | None = None
    start: float | None = None
    stop: float | None = None

    @property
    def is_whole_file(self) -> bool:
        """Return whether the row is about the whole file."""
        return self.clip is None and self.start is None and self.stop is None


@dataclass(frozen=True)
class OddRow:
    """A row that cannot be used; `reason` names its line.

    file: that it names, None if it names none. is_part: whether it is about a part of that file.
    """

    file: str | None
    reason: str
    is_part: bool = False


def find_table(folder: Path, table: Path | None) -> Path | None:
    """Return the given table, or captions.jsonl, .csv or .tsv in `folder` or else its parent; None if there is none.

    ValueError when the given one is not there, or the choice is not clear.
    """
    if table is not None:
        if not table.is_file():
            raise ValueError(f"No caption table at {table}.")
        return table
    for directory in (folder, folder.parent):
        tables = [directory / name for name in TABLES if (directory / name).is_file()]
        if len(tables) > 1:
            raise ValueError(
                f"{directory} holds both {tables[0].name} and {tables[1].name}; say which one with --captions."
            )
        if tables:
            return tables[0]
    return None


def read_table(path: Path, open_file: FileOpener = open_regular) -> "tuple[dict[str, Captions | OddRow], list[OddRow]]":
    """Read captions by file name, in order of appearance, and the odd rows that name no file.

    A file may have several rows. A .csv or .tsv has the columns file and caption, a .jsonl has objects {"file": ...,
    "caption": ...} (or "captions", a list); all may give source and licence. An odd row, such as one with more or fewer
    cells than columns, costs the file that it names, which has an `OddRow` then, and no other. ValueError when the
    table cannot be opened, a .csv or .tsv lacks those columns, no row names a file, more than `MAX_ROWS_WITHOUT_FILE`
    name none, or a row has more than `MAX_ROW_CHARACTERS`.
    """
    table: dict[str, Captions | OddRow] = {}
    nameless = []
    for row in read_rows(path, open_file):
        if row.file is None:
            nameless.append(row)
            continue
        previous = table.get(row.file, Captions(()))
        if isinstance(row, OddRow) or isinstance(previous, OddRow):
            table[row.file] = previous if isinstance(previous, OddRow) else row
        else:
            table[row.file] = replace(row.captions, texts=previous.texts + row.captions.texts)
    return table, nameless


def read_rows(path: Path, open_file: FileOpener = open_regular) -> Iterator["Row | OddRow"]:
    """Read the rows of a table as in `read_table`; each may also name a clip, or a start and stop in seconds.

    ValueError as `read_table`.
    """
    nameless, has_file, first_reason = 0, False, ""
    is_csv = path.suffix.lower() in DELIMITERS
    with closing(_Lines(path, open_file)) as lines:
        for number, values, fault in _csv_rows(path, lines) if is_csv else _json_rows(lines):
            file = values.get("file")
            file = file if isinstance(file, str) and file else None
            has_file |= file is not None
            try:
                yield _row(file, values, fault)
                continue
            except ValueError as error:
                reason = f"an odd row of its captions (line {number} of {path.name}: {error})"
            if file is None:
                nameless += 1
                first_reason = first_reason or reason
                if nameless > MAX_ROWS_WITHOUT_FILE:
                    raise ValueError(f"{path}, line {number}: more than {MAX_ROWS_WITHOUT_FILE} odd rows name no file.")
                yield OddRow(None, reason)
            else:
                is_part = any(values.get(name) not in (None, "") for name in ("clip", "start", "stop"))
                yield OddRow(file if _is_plain(file) else shorten(file), reason, is_part)
    if nameless and not has_file:
        raise ValueError(f"{path} cannot be read as a caption table: no row names a file; the first is {first_reason}.")


def _row(file: str | None, values: Mapping[str, Any], fault: str | None) -> Row:
    """Return the row of these values. ValueError when they are none, or the row has a `fault`."""
    if fault is not None:
        raise ValueError(fault)
    if file is None:
        raise ValueError(
            f"expected a file name under 'file', not {shorten(values['file'])}"
            if "file" in values
            else "it lacks 'file', the name of a file"
        )
    clip = values.get("clip") or None
    if not _is_plain(file):
        raise ValueError(f"{shorten(file)} cannot be the name of a file")
    if not isinstance(clip, str | None) or not _is_plain(clip or ""):
        raise ValueError(f"expected a clip's id under 'clip', not {shorten(clip)}")
    start, stop = (_seconds(values, name) for name in ("start", "stop"))
    if start is not None and stop is not None and start >= stop:
        raise ValueError(f"it starts at {start:g} s and stops at {stop:g} s")
    return Row(file, _from_mapping(values), clip, start, stop)


def _is_plain(name: str) -> bool:
    """Return whether a name has no U+0000, no half of a surrogate pair, and no more characters than a path may have."""
    return len(name) <= 4096 and "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)


def _seconds(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"expected seconds under '{name}', not {shorten(value)}")
    return seconds


# The first line of a row, its values (of one that cannot be parsed the file, if it can be told), and why it is odd.
_Parsed = tuple[int, Mapping[str, Any], str | None]


def _csv_rows(path: Path, lines: "_Lines") -> Iterator[_Parsed]:
    """Yield the rows below the columns' names. ValueError when these are not as `read_table` says."""
    delimiter = DELIMITERS[path.suffix.lower()]
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.DictReader(lines, strict=True, delimiter=delimiter, quoting=quoting)
    try:
        columns = list(reader.fieldnames or ())
    except (csv.Error, _OddLine) as error:
        raise ValueError(f"{path}, line 1: expected the columns file and caption ({error}).") from error
    if not {"file", "caption"} <= set(columns):
        names = ", ".join(map(shorten, columns)) or "none"
        raise ValueError(f"{path}: expected the columns file and caption, not {names}.")
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise ValueError(f"{path}: expected each column once; {shorten(twice[0])} stands there twice.")
    while True:
        lines.start_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except (csv.Error, _OddLine) as error:  # a quote that nothing closes, say: the next line starts a row
            cells = dict(zip(columns, lines.rewind().partition('"')[0].split(delimiter)[:-1], strict=False))
            fault = f"not CSV ({error})" if isinstance(error, csv.Error) else str(error)
            yield lines.first, {"file": cells.get("file")}, fault
        else:
            surplus = row.pop(None, [])
            values = {name: cell for name, cell in row.items() if cell is not None}
            fault = lines.fault
            count = len(values) + len(surplus)
            if fault is None and (len(values) < len(columns) or any(surplus)):
                fault = f"it has {count} cell{'s' * (count != 1)}, not {len(columns)}"
                fault += "; a cell with a comma in it stands in quotes" if surplus and delimiter == "," else ""
            yield lines.first, values, fault


def _json_rows(lines: "_Lines") -> Iterator[_Parsed]:
    """Yield the objects, one a line."""
    while True:
        lines.start_row()
        try:
            line = next(lines)
        except StopIteration:
            return
        except _OddLine as error:
            yield lines.first, _find_file(lines.rewind()), str(error)
            continue
        if not line.strip():
            continue
        try:
            row = load_json(line, "")
        except ValueError as error:
            yield lines.first, _find_file(line), lines.fault or str(error).removeprefix(": ").removesuffix(".")
        else:
            is_object = isinstance(row, dict)
            fault = None if is_object else f"expected a JSON object, not {shorten(row)}"
            yield lines.first, row if is_object else {}, lines.fault or fault


_decode = json.JSONDecoder().raw_decode


def _find_file(line: str) -> dict[str, Any]:
    """Return the file that an odd line's object names before its first fault, as its only value if it names one."""
    values: list[Any] = []
    end = 0
    try:
        while mark := re.compile(r"\s*,\s*" if end else r"\s*\{\s*").match(line, end):
            key, end = _decode(line, mark.end())
            colon = re.compile(r"\s*:\s*").match(line, end)
            if not isinstance(key, str) or colon is None:
                break
            value, end = _decode(line, colon.end())
            if key == "file":
                values.append(value)
    except (ValueError, RecursionError):
        pass  # the fault
    return {"file": values[0]} if values and all(value == values[0] for value in values) else {}


class _OddLine(ValueError):
    """A line that makes its row odd."""


class _Lines(Iterator[str]):
    """The lines of a table. _OddLine for that with which a row is longer than `MOST_TEXT` characters.

    Attributes:
        first: the number of the row's first line that is not blank.
        fault: why the row is odd, None if its lines are fine.
    """

    def __init__(self, path: Path, open_file: FileOpener):
        self._path = path
        self._number = 0  # of the last line
        self._row: list[str] = []  # lines of the row
        self._again: deque[str] = deque()  # lines to read before those of the file
        self.start_row()
        try:
            file = open_file(path)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a caption table: {error}.") from error
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def start_row(self) -> None:
        """Start a row with the next line."""
        self._row.clear()
        self._length, self.first, self.fault = 0, 0, None

    def rewind(self) -> str:
        """Go back to the line after the row's first one, which is returned, at most `MOST_TEXT` + 1 characters."""
        first, *others = self._row
        self._again.extendleft(reversed(others))
        self._number -= len(others)
        return first

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self._number += 1
        if not self._row and not line.strip("\r\n"):
            return line  # between rows
        self.first = self.first or self._number
        self._row.append(line)
        self._length += len(line)
        if self._length > MOST_TEXT:
            raise _OddLine(f"a row of more than {MOST_TEXT} characters")
        try:
            line.encode()
        except UnicodeEncodeError:
            self.fault = "not UTF-8"
        return line

    def _read(self) -> str:
        """Return the next line of the file, or the start of one that is too long, the rest of which is passed over."""
        line = rest = self._file.readline(MOST_TEXT + 1)
        length = len(line)
        while len(rest) > MOST_TEXT and not rest.endswith(("\r", "\n")):
            if length > MAX_ROW_CHARACTERS:
                number = self._number + 1
                raise ValueError(f"{self._path}, line {number}: a row of more than {MAX_ROW_CHARACTERS} characters.")
            rest = self._file.readline(MOST_TEXT + 1)
            length += len(rest)
        return line

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _from_mapping(values: Any) -> Captions:
    texts = values.get("captions", [values.get("caption")]) if isinstance(values, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected 'caption', a text, or 'captions', a list of texts")
    texts_of = {name: values.get(name) or "" for name in ("source", "licence")}
    for name, value in texts_of.items():
        if not isinstance(value, str):
            raise ValueError(f"expected a text under '{name}', not {shorten(value)}")
    return Captions(clean(texts), *(next(iter(clean([value])), None) for value in texts_of.values()))


def clean(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts with control characters replaced by spaces, stripped, without empty ones."""
    plain = ("".join(c if c.isprintable() or c in JOINERS else " " for c in text) for text in texts)
    plain = (text.strip(" " + JOINERS) for text in plain)
    return tuple(text for text in plain if text)
