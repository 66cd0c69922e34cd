"""What goes into a build: files that a glob or folder matches, their hashes, and the captions that lie beside them."""

import glob
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

from videodit_data import captions as beside
from videodit_data.captions import Captions, Row
from videodit_data.footage import storage
from videodit_data.pool import ordered_map

VIDEOS = (".mp4", ".webm", ".mov", ".avi", ".gif", ".mkv", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


@dataclass(frozen=True)
class Source:
    """A file of footage.

    name: its path below what the input matches. path: where it is. hash: of its bytes; of other file systems their
    checksum. rows: captions of it, of parts of it, and of clips. state: as `storage.state`, before it was hashed.
    """

    name: str
    path: str
    hash: str
    source: str
    licence: str
    rows: tuple[Row, ...] = ()
    state: str = ""

    def to_json(self) -> str:
        """One line, for `from_json`."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> "Source":
        """Undoes `to_json`."""
        values = json.loads(line)
        rows = tuple(
            Row(**row | {"captions": Captions(**row["captions"] | {"texts": tuple(row["captions"]["texts"])})})
            for row in values["rows"]
        )
        return Source(**values | {"rows": rows})

    def captions_of(self, clip: str, start: float, stop: float) -> Captions:
        """Captions of a clip from second `start` to `stop`.

        Those that name it; else those of times that it shares half its length with; else those of the whole file.
        """
        named = [row for row in self.rows if row.clip == clip]
        timed = [row for row in self.rows if not row.whole and row.clip is None and _share(row, start, stop) >= 0.5]
        rows = named or timed or [row for row in self.rows if row.whole]
        texts = tuple(text for row in rows for text in row.captions.texts)
        first = rows[0].captions if rows else Captions(())
        return Captions(texts, first.source or self.source, first.licence or self.licence)


@dataclass(frozen=True)
class Input:
    """All sources, by name, and what was matched or named but is none: name and reason."""

    sources: tuple[Source, ...]
    unusable: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """One hash over everything that a data set is made of, wherever it lies."""
        digest = hashlib.sha256()
        for source in self.sources:
            digest.update(json.dumps(asdict(source) | {"path": "", "state": ""}).encode())
        digest.update(json.dumps(self.unusable).encode())
        return digest.hexdigest()


def _share(row: Row, start: float, stop: float) -> float:
    shared = min(stop, row.stop if row.stop is not None else stop) - max(start, row.start or 0.0)
    return shared / max(stop - start, 1e-9)


def gather(
    inputs: Sequence[str],
    *,
    captions: str | None = None,
    source: str | None = None,
    licence: str = "unknown",
    without: Sequence[str] = (),
    threads: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Input:
    """The sources that globs, folders or files match, apart from what lies in the folders `without`.

    Args:
        captions: table; captions.jsonl or .csv in the folder or the one above it if None.
        source, licence: where captions do not say; the folder's name if None.

    Raises:
        ValueError: when nothing matches, two files have one name, or a table cannot be read.
    """
    matched: dict[str, str] = {}
    for pattern in inputs:
        root, paths = _match(pattern)
        for path in paths:
            name = path.removeprefix(root).lstrip("/")
            hidden = any(part.startswith(".") for part in name.split("/"))
            if hidden or any(path.startswith(folder.rstrip("/") + "/") for folder in without):
                continue
            if matched.setdefault(name, path) != path:
                raise ValueError(f"{matched[name]} and {path} would both be called {name}: build them apart.")
    if not any(_is_video(path) for path in matched.values()):
        raise ValueError(f"--input {' '.join(inputs)} matches no video ({', '.join(VIDEOS)}).")
    root = _match(inputs[0])[0]
    table = _table(root, captions)
    tabled, unusable = _tabled(table, root, matched)
    unusable += _others(matched, table)
    videos = sorted((name, path) for name, path in matched.items() if _is_video(path))

    def examine(video: tuple[str, str]) -> Source | tuple[str, str]:
        name, path = video
        try:
            rows, state = _sidecar(path) or tuple(tabled.get(name, ())), storage.state(path)
            return Source(name, path, _hash(path), source or os.path.basename(root) or "footage", licence, rows, state)
        except ValueError as error:
            return name, str(error)
        except OSError as error:
            return name, f"may not be read ({error.strerror or error})"

    sources = []
    for done, found in enumerate(ordered_map(examine, videos, threads), 1):
        sources.append(found) if isinstance(found, Source) else unusable.append(found)
        progress(done, len(videos))
    return Input(tuple(sources), tuple(sorted(unusable)))


def _match(pattern: str) -> tuple[str, list[str]]:
    """The folder that names are relative to, and the files."""
    if storage.is_remote(pattern):
        folder = not glob.has_magic(pattern) and not os.path.splitext(pattern)[1]
        root = pattern.rstrip("/") if folder else _fixed(pattern)
        (result,) = FileSystems.match([root + "/**" if folder else pattern])
        return root, sorted(each.path for each in result.metadata_list)
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.isdir(path):
        return path, sorted(str(each) for each in Path(path).rglob("*") if each.is_file())
    paths = glob.glob(path, recursive=True) if glob.has_magic(path) and not os.path.exists(path) else [path]
    return _fixed(path), sorted(each for each in paths if os.path.isfile(each))


def _fixed(pattern: str) -> str:
    """The folder before the first part with a wildcard."""
    parts = pattern.split("/")
    magic = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return "/".join(parts[: min(magic, len(parts) - 1)])


def _is_video(path: str) -> bool:
    return path.lower().endswith(VIDEOS)


def _table(root: str, given: str | None) -> str | None:
    """The caption table, given or found beside the footage."""
    if given is None and storage.is_remote(root):
        return next((t for t in (storage.join(root, name) for name in beside.TABLES) if storage.exists(t)), None)
    if given is not None and storage.is_remote(given):
        return given
    found = beside.find_table(Path(root), None if given is None else Path(given))
    return None if found is None else os.path.abspath(found)


def _tabled(
    table: str | None, root: str, matched: Mapping[str, str]
) -> tuple[dict[str, list[Row]], list[tuple[str, str]]]:
    """Rows by the source that they name, relative to the footage or to the table; files named that are nowhere."""
    if table is None:
        return {}, []
    tabled, missing = defaultdict(list), set()
    names = {os.path.realpath(path) if not storage.is_remote(path) else path: name for name, path in matched.items()}
    with storage.here(table) as local:
        for row in beside.read_rows(local):
            places = [storage.join(folder, row.file) for folder in (root, table.rsplit("/", 1)[0])]
            real = [place if storage.is_remote(place) else os.path.realpath(place) for place in places]
            name = next((names[place] for place in real if place in names), None)
            if name is not None:
                tabled[name].append(row)
            elif row.file not in missing and not any(storage.exists(place) for place in places):
                missing.add(row.file)
    return dict(tabled), [(file, f"named in {os.path.basename(table)}, but not there") for file in missing]


def _others(matched: Mapping[str, str], table: str | None) -> list[tuple[str, str]]:
    """Matched files that are no videos and no captions of one, with the reason."""
    stems = {os.path.splitext(path)[0] for path in matched.values() if _is_video(path)}
    others = []
    for name, path in matched.items():
        stem, suffix = os.path.splitext(path)
        if not _is_video(path) and path != table and not (suffix in beside.SIDECARS and stem in stems):
            kind = "a caption file without a video of its name" if suffix in beside.SIDECARS else "not a video file"
            others.append((name, kind))
    return others


def _sidecar(path: str) -> tuple[Row, ...]:
    """Captions in a .json or .txt of the video's name. ValueError when they cannot be read."""
    for suffix in beside.SIDECARS:
        file = os.path.splitext(path)[0] + suffix
        if storage.exists(file):
            with storage.here(file) as local:
                found = beside.read_sidecar(local)
                return () if found is None else (Row("", found),)
    return ()


def _hash(path: str) -> str:
    """The hash of a local file; the checksum that another file system keeps."""
    if storage.is_remote(path):
        return hashlib.sha256(str(FileSystems.checksum(path)).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
