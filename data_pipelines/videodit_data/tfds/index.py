"""The index of a split of a TFDS data set, from reading it once: its files' hashes, and every clip's size.

Stored as JSON, and used again as long as the files have the same size and time, and features and options are the same.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videodit_data.boundary.typed_json import Sha256, Size, parse_json
from videodit_data.storage.manifest import Progress

FORMAT, VERSION = "videodit-tfds-index", 1
_SILENCE = 20.0  # seconds between log messages without a progress callback


@dataclass(frozen=True)
class Part:
    """The range of a file's examples that a split takes."""

    file: str
    skip: int
    take: int


@dataclass(frozen=True)
class Entry:
    """An example: the clip's id, and its frames, height and width, or the reason why it cannot be served."""

    id: str
    result: tuple[int, int, int] | str


@dataclass(frozen=True)
class Index:
    """hashes: sha256 of each part's file. entries: of every example of the split, in order."""

    hashes: tuple[str, ...]
    entries: tuple[Entry, ...]


def read_or_scan(
    folder: Path,
    parts: Sequence[Part],
    key: Mapping[str, Any],
    facts: Callable[[int], Entry],
    *,
    progress: Progress | None = None,
) -> Index:
    """Read the index in `folder`, or else scan the split and write the index, if the folder is writable.

    key: plain JSON, what the facts depend on apart from the files. ValueError when two clips have one id.
    """
    rows = [[os.path.basename(part.file), part.skip, part.take] for part in parts]
    identity = json.loads(json.dumps({"rows": rows, **key}))
    index_key = identity | {"files": [_stamp(part.file) for part in parts]}
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"videodit_index_{name}.json"
    if (cached_index := _read(path, index_key, parts)) is not None:
        return cached_index
    _, total = _sizes(parts)
    entries, last_message = [], time.monotonic()
    for number in range(total):
        entries.append(facts(number))
        if progress is not None:
            progress("scan", number + 1, total)
        elif time.monotonic() - last_message > _SILENCE:
            last_message = time.monotonic()
            message = "%s: %d of %d examples read; this is done once, for the sizes of clips."
            logging.getLogger(__name__).warning(message, folder, number + 1, total)
    index = Index(tuple(_sha256(part.file) for part in parts), tuple(entries))
    _check(index, folder)
    _write(path, index_key, index)
    return index


def _stamp(file: str) -> list[Any]:
    status = os.stat(file)
    return [os.path.basename(file), status.st_size, status.st_mtime_ns]


def _sha256(file: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(index: Index, folder: Path) -> None:
    ids: set[str] = set()
    for entry in index.entries:
        if entry.id in ids:
            raise ValueError(f"{folder}: two clips have the id '{entry.id}'; another feature must be their id.")
        ids.add(entry.id)


@dataclass(frozen=True)
class _Stored:
    """The contents of an index file. `of`: what it is the index of."""

    format: str
    version: int
    of: Mapping[str, object]
    sha256: tuple[Sha256, ...]
    clips: tuple[tuple[str, tuple[Size, Size, Size] | str], ...]


def _read(path: Path, index_key: Mapping[str, Any], parts: Sequence[Part]) -> Index | None:
    """Read a stored index; None if it is of other files or cannot be read."""
    try:
        stored = parse_json(path.read_bytes(), _Stored, str(path), nul=True)
    except (OSError, ValueError):
        return None
    sizes = len(stored.sha256), len(stored.clips)
    if (stored.format, stored.version, stored.of) != (FORMAT, VERSION, index_key) or sizes != _sizes(parts):
        return None
    return Index(stored.sha256, tuple(Entry(*clip) for clip in stored.clips))


def _sizes(parts: Sequence[Part]) -> tuple[int, int]:
    """Return the number of files and of examples of a split."""
    return len(parts), sum(part.take for part in parts)


def _write(path: Path, index_key: Mapping[str, Any], index: Index) -> None:
    """Write the index atomically, also when several processes write it at once."""
    clips = [[entry.id, entry.result] for entry in index.entries]
    values = {"format": FORMAT, "version": VERSION, "of": index_key, "sha256": index.hashes, "clips": clips}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".index-") as scratch:
            file = Path(scratch) / path.name
            file.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
            file.replace(path)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s cannot be written (%s): the data set is read whole again next time; index= names another folder.",
            path,
            error.strerror,
        )
