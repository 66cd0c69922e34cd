"""The input of a build: files that a glob or folder matches, their hashes, and the captions next to them."""

import glob
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

from videodit_data import caption_files
from videodit_data.caption_files import Captions, Row
from videodit_data.footage import file_system
from videodit_data.storage.manifest import sha256
from videodit_data.thread_pool import ordered_map
from videodit_data.video.files import NOT_UNICODE, VIDEOS, is_video, printable


@dataclass(frozen=True)
class Source:
    """A file of footage.

    name: its path below what the input matches. path: where it is. hash: of its bytes; of other file systems their
    checksum. rows: captions of it, of parts of it, and of clips. state: as `file_system.state`, before it was hashed.
    """

    name: str
    path: str
    hash: str
    source: str
    licence: str
    rows: tuple[Row, ...] = ()
    state: str = ""

    def to_json(self) -> str:
        """Return one line, for `from_json`."""
        return json.dumps(asdict(self))  # ASCII: paths may be no Unicode, and no character ends a line

    @staticmethod
    def from_json(line: str) -> "Source":
        """Invert `to_json`."""
        values = json.loads(line)
        rows = tuple(
            Row(**row | {"captions": Captions(**row["captions"] | {"texts": tuple(row["captions"]["texts"])})})
            for row in values["rows"]
        )
        return Source(**values | {"rows": rows})

    def captions_of(self, clip: str, start: float, stop: float) -> Captions:
        """Return the captions of a clip from second `start` to `stop`.

        Those that name it; else those of times that it shares half its length with; else those of the whole file.
        """
        named = [row for row in self.rows if row.clip == clip]
        timed = [row for row in self.rows if _is_timed(row) and _share(row, start, stop) >= 0.5]
        rows = named or timed or [row for row in self.rows if row.is_whole_file]
        texts = tuple(text for row in rows for text in row.captions.texts)
        first = rows[0].captions if rows else Captions(())
        return Captions(texts, first.source or self.source, first.licence or self.licence)

    def unmatched_rows(self, clips: Mapping[str, tuple[float, float]]) -> list[tuple[Row, str]]:
        """Return rows that fit none of the source's clips (start and stop in seconds, by id), and why."""
        unmatched = []
        for row in self.rows:
            if row.clip is not None and row.clip not in clips:
                unmatched.append((row, "a caption of a clip that there is not"))
            elif _is_timed(row) and not any(_share(row, *times) >= 0.5 for times in clips.values()):
                unmatched.append((row, "a caption of less than half of any clip"))
        return unmatched


@dataclass(frozen=True)
class Input:
    """All sources by name, and unusable files that were matched or named: name and reason."""

    sources: tuple[Source, ...]
    unusable: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Return one hash over the whole input of a data set, wherever its files are."""
        digest = hashlib.sha256()
        for source in self.sources:
            digest.update(json.dumps(asdict(source) | {"path": "", "state": ""}).encode())
        digest.update(json.dumps(self.unusable).encode())
        return digest.hexdigest()


def _is_timed(row: Row) -> bool:
    return row.clip is None and not row.is_whole_file


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
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> Input:
    """Return the sources that globs, folders or files match, apart from what lies in the folders `without`.

    Args:
        captions: table; if None, captions.jsonl or .csv in each input's folder or the one above it.
        source, licence: where captions do not say; the input's folder's name if None.

    Raises:
        ValueError: when nothing matches, two files have one name, or a table cannot be read.
    """
    matched, unusable = _all(inputs, without)
    if not any(is_video(each.path) for each in matched):
        raise ValueError(f"--input {' '.join(inputs)} matches no video ({', '.join(VIDEOS)}).")
    tables: dict[str, set[str]] = defaultdict(set)  # and the folders that they are about
    for root in {each.root for each in matched}:
        if (table := _table(root, captions)) is not None:
            tables[table].add(root)
    tabled, missing = _match_rows(tables, matched)
    unusable += missing + _others(matched, set(tables))
    videos = sorted((each for each in matched if is_video(each.path)), key=lambda each: each.name)

    def examine(video: _Matched) -> Source | tuple[str, str]:
        name, path = video.name, video.path
        if printable(name) != name:
            return printable(name), NOT_UNICODE
        try:
            rows, state = _sidecar(path) or tuple(tabled.get(name, ())), file_system.state(path)
            folder = printable(os.path.basename(video.root)) or "footage"
            return Source(name, path, _hash(path), source or folder, licence, rows, state)
        except ValueError as error:
            return name, str(error)
        except OSError as error:
            return name, f"may not be read ({error.strerror or error})"

    sources = []
    for count, result in enumerate(ordered_map(examine, videos, threads), 1):
        sources.append(result) if isinstance(result, Source) else unusable.append(result)
        progress(count, len(videos))
    return Input(tuple(sources), tuple(sorted(unusable)))


@dataclass(frozen=True)
class _Matched:
    """A matched file, and the folder that its name is relative to."""

    name: str
    path: str
    root: str


def _all(inputs: Sequence[str], without: Sequence[str]) -> tuple[list[_Matched], list[tuple[str, str]]]:
    """Return the files that the inputs match, each once, and their further names. ValueError as `gather`."""
    names: dict[str, str] = {}
    first_of: dict[str, _Matched] = {}  # by real path
    links = []
    for pattern in inputs:
        root, paths = _match(pattern)
        for path in paths:
            name = path.removeprefix(root).lstrip("/")
            hidden = any(part.startswith(".") for part in name.split("/"))
            if hidden or any(path.startswith(folder.rstrip("/") + "/") for folder in without):
                continue
            first = first_of.setdefault(_real(path), _Matched(name, path, root))
            if not is_video(path):
                continue
            if first.path != path:
                links.append((printable(name), f"the same file as {printable(first.name)}"))
            elif first.root == root and names.setdefault(name, path) != path:
                raise ValueError(f"{names[name]} and {path} would both be called {name}: build them apart.")
    return list(first_of.values()), links


def _real(path: str) -> str:
    return path if file_system.is_remote(path) else os.path.realpath(path)


def _match(pattern: str) -> tuple[str, list[str]]:
    """Return the folder that names are relative to, and the files."""
    if file_system.is_remote(pattern):
        folder = not glob.has_magic(pattern) and not os.path.splitext(pattern)[1]
        root = pattern.rstrip("/") if folder else _fixed_folder(pattern)
        (result,) = FileSystems.match([root + "/**" if folder else pattern])
        return root, sorted(each.path for each in result.metadata_list)
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.isdir(path):
        return path, sorted(str(each) for each in Path(path).rglob("*") if _is_file(str(each)))
    paths = glob.glob(path, recursive=True) if glob.has_magic(path) and not os.path.exists(path) else [path]
    return _fixed_folder(path), sorted(filter(_is_file, paths))


def _is_file(path: str) -> bool:
    """Return whether a path is a file or a broken link, which is reported as a file that cannot be read."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))


def _fixed_folder(pattern: str) -> str:
    """Return the folder before the first part with a wildcard."""
    parts = pattern.split("/")
    magic = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return "/".join(parts[: min(magic, len(parts) - 1)])


def _table(root: str, requested: str | None) -> str | None:
    """Return the caption table, given or found next to the footage."""
    if requested is None and file_system.is_remote(root):
        return next(
            (t for t in (file_system.join(root, name) for name in caption_files.TABLES) if file_system.exists(t)), None
        )
    if requested is not None and file_system.is_remote(requested):
        return requested
    path = caption_files.find_table(Path(root), None if requested is None else Path(requested))
    return None if path is None else os.path.abspath(path)


def _match_rows(
    tables: Mapping[str, Set[str]], matched: Sequence[_Matched]
) -> tuple[dict[str, list[Row]], list[tuple[str, str]]]:
    """Return rows by the source that they name, relative to the footage or to the table, and missing named files."""
    tabled: dict[str, list[Row]] = defaultdict(list)
    missing = []
    names = {_real(each.path): each.name for each in matched}
    for table, roots in sorted(tables.items()):
        nowhere = set()
        with file_system.open_local(table) as local:
            for row in caption_files.read_rows(local):
                paths = [file_system.join(folder, row.file) for folder in (*sorted(roots), table.rsplit("/", 1)[0])]
                name = next((names[path] for path in map(_real, paths) if path in names), None)
                if name is not None:
                    tabled[name].append(row)
                elif row.file not in nowhere and not any(file_system.exists(path) for path in paths):
                    nowhere.add(row.file)
        missing += [(file, f"named in {os.path.basename(table)}, but not there") for file in nowhere]
    return dict(tabled), missing


def _others(matched: Sequence[_Matched], tables: Set[str]) -> list[tuple[str, str]]:
    """Return matched files that are neither videos nor their captions, with the reason."""
    stems = {os.path.splitext(each.path)[0] for each in matched if is_video(each.path)}
    others = []
    for each in matched:
        stem, suffix = os.path.splitext(each.path)
        if (
            not is_video(each.path)
            and each.path not in tables
            and not (suffix in caption_files.SIDECARS and stem in stems)
        ):
            kind = (
                "a caption file without a video of its name" if suffix in caption_files.SIDECARS else "not a video file"
            )
            others.append((printable(each.name), kind))
    return others


def _sidecar(path: str) -> tuple[Row, ...]:
    """Read captions from a .json or .txt of the video's name. ValueError when they cannot be read."""
    for suffix in caption_files.SIDECARS:
        file = os.path.splitext(path)[0] + suffix
        if file_system.exists(file):
            with file_system.open_local(file) as local:
                captions = caption_files.read_sidecar(local)
                return () if captions is None else (Row("", captions),)
    return ()


def _hash(path: str) -> str:
    """Return the hash of a local file, or of the checksum that another file system keeps."""
    if file_system.is_remote(path):
        return hashlib.sha256(file_system.state(path).encode()).hexdigest()
    return sha256(Path(path))
