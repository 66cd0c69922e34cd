"""Captions in files next to video files: a .txt or .json of the same name, or one table for the whole folder."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SIDECARS = (".json", ".txt")
TABLES = ("captions.jsonl", "captions.csv")
JOINERS = "\u200c\u200d"  # no pictures of their own, but part of how Persian, Indic words and emoji are written


@dataclass(frozen=True)
class Captions:
    """The captions of one file and, if known, its source and licence."""

    texts: tuple[str, ...]
    source: str | None = None
    licence: str | None = None


def read_sidecar(video: Path) -> Captions | None:
    """Read captions from VIDEO.json or else VIDEO.txt; None when there is neither.

    The .json is {"caption": ...} or {"captions": [...]}, with "source" and "licence" if wanted; the .txt holds one
    caption a line. ValueError when the file cannot be read so.
    """
    for suffix in SIDECARS:
        path = video.with_suffix(suffix)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
                return _from_mapping(_json(text)) if suffix == ".json" else Captions(clean(text.splitlines()))
            except ValueError as error:
                raise ValueError(f"{path.name} cannot be used: {error}") from error
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


def read_table(path: Path) -> dict[str, Captions]:
    """Read captions by file name, in order of appearance; a file may have several rows.

    A .csv has the columns file and caption, a .jsonl has objects {"file": ..., "caption": ...} (or "captions", a
    list); both may give source and licence. ValueError names the line that cannot be used.
    """
    table: dict[str, Captions] = {}
    for row in read_rows(path):
        previous = table.get(row.file, Captions(()))
        table[row.file] = replace(row.captions, texts=previous.texts + row.captions.texts)
    return table


def read_rows(path: Path) -> Iterator[Row]:
    """Read the rows of a table as in `read_table`; each may also name a clip, or a start and stop in seconds.

    ValueError names the line that cannot be used.
    """
    for number, row in _rows(path):
        try:
            file, clip = row.get("file"), row.get("clip") or None
            if not isinstance(file, str) or not file:
                raise ValueError("expected a file name under 'file'")
            if not isinstance(clip, str | None):
                raise ValueError("expected a clip's id under 'clip'")
            start, stop = (_seconds(row, name) for name in ("start", "stop"))
            if start is not None and stop is not None and start >= stop:
                raise ValueError(f"it starts at {start:g} s and stops at {stop:g} s")
            yield Row(file, _from_mapping(row), clip, start, stop)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error


def _seconds(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected seconds under '{name}', not {value!r}") from error


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix == ".csv":
        reader = csv.DictReader(_lines(path))
        try:
            if not {"file", "caption"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path}: expected the columns file and caption, not {reader.fieldnames}.")
            yield from ((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.reader.line_num}: not CSV ({error}).") from error
        return
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                row = _json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
            yield number, row if isinstance(row, dict) else {}


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, 1):
            try:
                line.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8.") from error
            yield line


def _json(text: str) -> Any:
    """Parse JSON. ValueError also on nesting without end."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _from_mapping(values: Any) -> Captions:
    texts = values.get("captions", [values.get("caption")]) if isinstance(values, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected 'caption', a text, or 'captions', a list of texts")
    texts_of = {name: values.get(name) or "" for name in ("source", "licence")}
    for name, value in texts_of.items():
        if not isinstance(value, str):
            raise ValueError(f"expected a text under '{name}'")
    return Captions(clean(texts), *(next(iter(clean([value])), None) for value in texts_of.values()))


def clean(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts with control characters replaced by spaces, stripped, without empty ones."""
    plain = ("".join(c if c.isprintable() or c in JOINERS else " " for c in text) for text in texts)
    plain = (text.strip(" " + JOINERS) for text in plain)
    return tuple(text for text in plain if text)
