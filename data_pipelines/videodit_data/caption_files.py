"""Captions in files next to video files: a .txt or .json of the same name, or one table for the whole folder."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videodit_data.boundary.input_files import MOST_TEXT, FileOpener, open_regular, read_text
from videodit_data.boundary.typed_json import load_json, shorten

SIDECARS = (".json", ".txt")
TABLES = ("captions.jsonl", "captions.csv")
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
    """A row that names a file, or a part of one (`is_part`), and cannot be used; `reason` names its line."""

    file: str
    reason: str
    is_part: bool = False


def find_table(folder: Path, table: Path | None) -> Path | None:
    """Return the given table, or captions.jsonl or .csv in `folder` or else in its parent; None when there is none.

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
                f"{directory} holds both {tables[0].name} and {tables[1].name}; say which one with captions=."
            )
        if tables:
            return tables[0]
    return None


def read_table(path: Path, open_file: FileOpener = open_regular) -> "dict[str, Captions | OddRow]":
    """Read captions by file name, in order of appearance; a file may have several rows.

    A .csv has the columns file and caption, a .jsonl has objects {"file": ..., "caption": ...} (or "captions", a
    list); both may give source and licence. A row that names a file and is odd otherwise costs that file alone, and is
    an `OddRow`. ValueError names the line of any other that cannot be used.
    """
    table: dict[str, Captions | OddRow] = {}
    for row in read_rows(path, open_file):
        previous = table.get(row.file, Captions(()))
        if isinstance(row, OddRow) or isinstance(previous, OddRow):
            table[row.file] = previous if isinstance(previous, OddRow) else row
        else:
            table[row.file] = replace(row.captions, texts=previous.texts + row.captions.texts)
    return table


def read_rows(path: Path, open_file: FileOpener = open_regular) -> Iterator["Row | OddRow"]:
    """Read the rows of a table as in `read_table`; each may also name a clip, or a start and stop in seconds.

    ValueError names the line that cannot be used.
    """
    with closing(_Lines(path, open_file)) as lines:
        for number, values in _rows(path, lines):
            file = values.get("file")
            if not isinstance(file, str) or not file:
                raise ValueError(f"{path}, line {number}: expected a file name under 'file', not {shorten(file)}.")
            try:
                row: Row | OddRow = _row(file, values)
            except ValueError as error:
                is_part = any(values.get(name) not in (None, "") for name in ("clip", "start", "stop"))
                name = file if _is_plain(file) else shorten(file)
                row = OddRow(name, f"an odd row of its captions (line {number} of {path.name}: {error})", is_part)
            yield row


def _row(file: str, values: Mapping[str, Any]) -> Row:
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
    """Return whether a name has neither U+0000 nor half a surrogate pair."""
    return "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)


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


def _rows(path: Path, lines: "_Lines") -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix == ".csv":
        reader = csv.DictReader(lines)
        try:
            if not {"file", "caption"} <= set(reader.fieldnames or ()):
                names = ", ".join(map(shorten, reader.fieldnames or ())) or "none"
                raise ValueError(f"{path}: expected the columns file and caption, not {names}.")
            if twice := [name for name, count in Counter(reader.fieldnames).items() if count > 1]:
                raise ValueError(f"{path}: expected each column once; {shorten(twice[0])} stands there twice.")
            for row in reader:
                lines.row_length = 0
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.reader.line_num}: not CSV ({error}).") from error
        return
    for number, line in enumerate(lines, 1):
        lines.row_length = 0
        if line.strip():
            row = load_json(line, f"{path}, line {number}")
            yield number, row if isinstance(row, dict) else {}


class _Lines(Iterator[str]):
    """The lines of a table. ValueError for one that is not UTF-8, and for a row that is longer than `MOST_TEXT`.

    row_length: characters since the last row; whoever reads rows sets it back.
    """

    def __init__(self, path: Path, open_file: FileOpener):
        self._path, self._number, self.row_length = path, 0, 0
        try:
            file = open_file(path)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as a caption table: {error}.") from error
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def __next__(self) -> str:
        line = self._file.readline(MOST_TEXT + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self.row_length += len(line)
        if self.row_length > MOST_TEXT:
            raise ValueError(f"{self._path}, line {self._number}: a row of more than {MOST_TEXT} characters.")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{self._path}, line {self._number}: not UTF-8.") from error
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
