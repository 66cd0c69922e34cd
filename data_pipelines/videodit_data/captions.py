"""Captions that lie beside video files: a .txt or .json of the same name, or one table for the whole folder."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SIDECARS = (".json", ".txt")
TABLES = ("captions.jsonl", "captions.csv")


@dataclass(frozen=True)
class Captions:
    """The captions of one file and, where they are told, its source and licence."""

    texts: tuple[str, ...]
    source: str | None = None
    licence: str | None = None


def read_sidecar(video: Path) -> Captions | None:
    """Captions from VIDEO.json or else VIDEO.txt; None when there is neither.

    The .json is {"caption": ...} or {"captions": [...]}, with "source" and "licence" if wanted; the .txt holds one
    caption a line. ValueError when the file cannot be read so.
    """
    for suffix in SIDECARS:
        path = video.with_suffix(suffix)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
                return _from_mapping(json.loads(text)) if suffix == ".json" else _captions(text.splitlines())
            except ValueError as error:
                raise ValueError(f"{path.name} cannot be used: {error}") from error
    return None


def find_table(folder: Path, given: Path | None) -> Path | None:
    """The given table, or captions.jsonl or .csv in `folder`, or else in the folder above it; None when there is none.

    ValueError when the given one is not there, or the choice is not clear.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(f"No caption table at {given}.")
        return given
    for place in (folder, folder.parent):
        found = [place / name for name in TABLES if (place / name).is_file()]
        if len(found) > 1:
            raise ValueError(f"{place} holds both {found[0].name} and {found[1].name}; say which one with captions=.")
        if found:
            return found[0]
    return None


def read_table(path: Path) -> dict[str, Captions]:
    """File name to captions, in order of appearance; a file may have several rows.

    A .csv has the columns file and caption, a .jsonl has objects {"file": ..., "caption": ...} (or "captions", a
    list); both may give source and licence. ValueError names the line that cannot be used.
    """
    table: dict[str, Captions] = {}
    for number, row in _rows(path):
        try:
            file = row.get("file")
            if not isinstance(file, str) or not file:
                raise ValueError("expected a file name under 'file'")
            found = _from_mapping(row)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
        known = table.get(file, Captions(()))
        table[file] = replace(found, texts=known.texts + found.texts)
    return table


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            if not {"file", "caption"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path}: expected the columns file and caption, not {reader.fieldnames}.")
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
                yield number, row if isinstance(row, dict) else {}


def _from_mapping(values: Any) -> Captions:
    texts = values.get("captions", [values.get("caption")]) if isinstance(values, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected 'caption', a text, or 'captions', a list of texts")
    told = {name: values.get(name) or None for name in ("source", "licence")}
    for name, value in told.items():
        if not isinstance(value, str | None):
            raise ValueError(f"expected a text under '{name}'")
    return replace(_captions(texts), **told)


def clean(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts without what is no text and would reach terminals (control characters become spaces), none empty."""
    plain = ("".join(c if c.isprintable() else " " for c in text).strip() for text in texts)
    return tuple(text for text in plain if text)


def _captions(texts: Iterable[str]) -> Captions:
    return Captions(clean(texts))
