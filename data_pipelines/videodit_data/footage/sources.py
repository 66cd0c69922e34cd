"""The input of a build: files that a glob or folder matches, their hashes, and the captions next to them."""

import glob
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from apache_beam.io.filesystems import FileSystems

from videodit_data import caption_files
from videodit_data.boundary.input_files import MOST_TEXT, InputFolder, NotRegular, open_regular
from videodit_data.boundary.typed_json import parse_json
from videodit_data.caption_files import Captions, OddRow, Row
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
        # ASCII, so that no character ends a line. Paths may be no Unicode.
        return json.dumps(asdict(self) | {"path": quote(os.fsencode(self.path), safe="/:")})

    @staticmethod
    def from_json(line: str) -> "Source":
        """Invert `to_json`."""
        source = parse_json(line, Source, "a source of the build")
        return replace(source, path=os.fsdecode(unquote_to_bytes(source.path)))

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
    follow_links: bool = False,
    threads: int = 4,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> Input:
    """Return the sources that globs, folders or files match, apart from what lies in the folders `without`.

    Args:
        captions: table; if None, captions.jsonl, .csv or .tsv in each input's folder or the one above it.
        source, licence: where captions do not say; the input's folder's name if None.
        follow_links: whether files and folders are read that links in the inputs' folders lead to outside of them.

    Raises:
        ValueError: when nothing matches, two files have one name, or a table cannot be read.
    """
    matched, unusable = _all(inputs, without, follow_links)
    if not any(is_video(each.path) for each in matched):
        raise ValueError(f"--input {' '.join(inputs)} matches no video ({', '.join(VIDEOS)}).")
    tables: dict[str, set[str]] = defaultdict(set)  # and the folders that they are about
    for root in {each.root for each in matched}:
        if (table := _table(root, captions)) is not None:
            tables[table].add(root)
    tabled, odd, missing = _match_rows(tables, matched, None if captions else follow_links)
    unusable += missing + _others(matched, set(tables))
    videos = sorted((each for each in matched if is_video(each.path)), key=lambda each: each.name)

    def examine(video: _Matched) -> Source | tuple[str, str]:
        name, path = video.name, video.path
        if printable(name) != name:
            return printable(name), NOT_UNICODE
        try:
            rows = _sidecar(path, InputFolder(Path(video.root), follow_links))
            if not rows and name in odd:
                return name, odd[name]
            rows = rows or tuple(tabled.get(name, ()))
            state = file_system.state(path)
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


def _all(
    inputs: Sequence[str], without: Sequence[str], follow_links: bool
) -> tuple[list[_Matched], list[tuple[str, str]]]:
    """Return the files that the inputs match, each once, and unusable ones. ValueError as `gather`."""
    names: dict[str, str] = {}
    first_of: dict[str, _Matched] = {}  # by real path
    unusable: dict[tuple[str, str], None] = {}
    for pattern in inputs:
        root, paths, refused = _match(pattern, follow_links, without)
        unusable |= {(printable(name), reason): None for name, reason in refused.items()}
        for path in paths:
            name = path.removeprefix(root).lstrip("/")
            hidden = any(part.startswith(".") for part in name.split("/"))
            if hidden or any(path.startswith(folder.rstrip("/") + "/") for folder in without):
                continue
            first = first_of.setdefault(_real(path), _Matched(name, path, root))
            if not is_video(path):
                continue
            if first.path != path:
                unusable[printable(name), f"the same file as {printable(first.name)}"] = None
            elif first.root == root and names.setdefault(name, path) != path:
                raise ValueError(f"{names[name]} and {path} would both be called {name}: build them apart.")
    return list(first_of.values()), list(unusable)


def _real(path: str) -> str:
    return path if file_system.is_remote(path) else os.path.realpath(path)


def _match(pattern: str, follow_links: bool, without: Sequence[str]) -> tuple[str, list[str], Mapping[str, str]]:
    """Return the folder that names are relative to, the files, and unusable entries: reason by name."""
    if file_system.is_remote(pattern):
        folder = not glob.has_magic(pattern) and not os.path.splitext(pattern)[1]
        root = pattern.rstrip("/") if folder else _fixed_folder(pattern)
        (result,) = FileSystems.match([root + "/**" if folder else pattern])
        return root, sorted(each.path for each in result.metadata_list), {}
    path = os.path.abspath(os.path.expanduser(pattern))
    real_without = {os.path.realpath(folder) for folder in without}
    if os.path.isdir(path):
        found = InputFolder(Path(path), follow_links).walk(real_without)
        return path, sorted(map(str, found.files.values())), found.unusable
    root = _fixed_folder(path)
    if not glob.has_magic(path) or os.path.exists(path):  # a file that is named is read, wherever it lies
        return _named(root, path)
    parts = path.removeprefix(root).strip("/").split("/")
    found = InputFolder(Path(root), follow_links).walk(real_without, depth=None if "**" in parts else len(parts))
    paths = [str(each) for name, each in found.files.items() if _fits(name.split("/"), parts)]
    named = found.linked_folders | {name for name in found.unusable if _fits(name.split("/"), parts)}
    return root, sorted(paths), {name: found.unusable[name] for name in named}


def _named(root: str, path: str) -> tuple[str, list[str], Mapping[str, str]]:
    """Return what `_match` does of a file that is named."""
    if not os.path.lexists(path):
        return root, [], {}
    try:
        open_regular(path).close()
    except NotRegular as error:
        return root, [], {os.path.basename(path): str(error)}
    except OSError as error:
        return root, [], {os.path.basename(path): f"may not be read ({error.strerror})"}
    return root, [path], {}


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether the names of a path fit the parts of a glob, of which ** stands for any folders."""
    if not parts or not names:
        return not names and all(part == "**" for part in parts)
    if parts[0] == "**":
        return _fits(names, parts[1:]) or _fits(names[1:], parts)
    return fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


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
    tables: Mapping[str, Set[str]], matched: Sequence[_Matched], follow_links: bool | None
) -> tuple[dict[str, list[Row]], dict[str, str], list[tuple[str, str]]]:
    """Return rows by the source that they name, relative to the footage or to the table, and those that are no use.

    These are sources with an odd row, and why, and odd rows of parts or of no file and named files that are missing,
    and why.

    follow_links: None for a table that was requested, which is read wherever it lies.
    """
    tabled: dict[str, list[Row]] = defaultdict(list)
    odd: dict[str, str] = {}
    missing = []
    names = {_real(each.path): each.name for each in matched}
    for table, roots in sorted(tables.items()):
        nowhere = set()
        with file_system.open_local(table) as local:
            found = follow_links is not None and not file_system.is_remote(table)
            open_table = InputFolder(local.parent, follow_links).open if found else open_regular
            for row in caption_files.read_rows(local, open_table):
                if row.file is None:
                    missing.append((printable(local.name), row.reason))
                    continue
                paths = [file_system.join(folder, row.file) for folder in (*sorted(roots), table.rsplit("/", 1)[0])]
                name = next((names[path] for path in map(_real, paths) if path in names), None)
                if isinstance(row, OddRow):
                    if name is None or row.is_part:
                        missing.append((name or row.file, row.reason))
                    else:
                        odd[name] = row.reason
                elif name is not None:
                    tabled[name].append(row)
                elif row.file not in nowhere and not any(file_system.exists(path) for path in paths):
                    nowhere.add(row.file)
        missing += [(file, f"named in {os.path.basename(table)}, but not there") for file in nowhere]
    return dict(tabled), odd, missing


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


def _sidecar(path: str, folder: InputFolder) -> tuple[Row, ...]:
    """Read captions from a .json or .txt of the video's name. ValueError when they cannot be read."""
    if not file_system.is_remote(path):
        captions = caption_files.read_sidecar(Path(path), folder.open)
        return () if captions is None else (Row("", captions),)
    for suffix in caption_files.SIDECARS:
        file = os.path.splitext(path)[0] + suffix
        if file_system.exists(file):
            with file_system.open_local(file, MOST_TEXT + 1) as local:
                captions = caption_files.read_sidecar(local)
                return () if captions is None else (Row("", captions),)
    return ()


def _hash(path: str) -> str:
    """Return the hash of a local file, or of the checksum that another file system keeps."""
    if file_system.is_remote(path):
        return hashlib.sha256(file_system.state(path).encode()).hexdigest()
    return sha256(Path(path))
