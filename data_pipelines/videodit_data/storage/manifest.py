"""A data set: a directory of ArrayRecord shards and the manifest that describes them, built all or nothing.

`build` writes into `DIR.partial`, one shard after the other, the manifest last, and then renames the directory. What
was finished before an interruption is kept. `info` is at once the provenance of the data set and its identity: the same
`info` means the same data.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from videodit_data.boundary.input_files import open_regular
from videodit_data.boundary.typed_json import Count, Rate, Sha256, Size, convert, like, parse_json, shorten, show_key
from videodit_data.storage.directory_lock import DirectoryLock
from videodit_data.storage.records import Record, RecordSource, even_ranges, shard_name, write_shard
from videodit_data.storage.whole_file import check_creatable, replace_whole, sync_directory

FILE = "manifest.json"
FORMAT, VERSION = "videodit-data", 2
_INFO = "info.json"  # of a data set that is being built

Content = Annotated[str, like(r"^(video|latent)\Z", '"video" or "latent"')]
Progress = Callable[[str, int, int], None]  # stage, number of finished items, total


@dataclass(frozen=True)
class Shard:
    """One shard: its file, hash and size, and of each clip frames, rate and sides, so that no reader need scan."""

    name: str
    sha256: Sha256
    bytes: Count
    frames: tuple[Size, ...]
    fps: tuple[Rate, ...]
    heights: tuple[Size, ...]
    widths: tuple[Size, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        lengths = {name: len(getattr(self, name)) for name in ("frames", "fps", "heights", "widths")}
        if len(set(lengths.values())) > 1 or not self.frames:
            counted = ", ".join(f"{count} {name}" for name, count in lengths.items())
            raise ValueError(f"{shorten(self.name)} has {counted}; expected one of each for every clip")


@dataclass(frozen=True)
class TextShard:
    """One shard of embeddings (`embeddings`): its file, hash and size, and how many captions it holds."""

    name: str
    sha256: Sha256
    bytes: Count
    captions: Size

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class Origin:
    """The number of clips from one source under one licence."""

    source: str
    licence: str
    clips: Count


@dataclass(frozen=True)
class LeftOut:
    """A file that did not become a clip, and why; or one of `count` files or parts of which the same is true."""

    file: str
    reason: str
    count: Count = 1


@dataclass(frozen=True)
class Manifest:
    """The manifest of a data set: its contents, their origins, and what was dropped."""

    content: Content
    shards: tuple[Shard, ...]
    origins: tuple[Origin, ...]
    left_out: tuple[LeftOut, ...] = ()
    info: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[TextShard, ...] = ()  # embeddings of the clips' captions, of the encoder in `info["text"]`

    @property
    def clips(self) -> int:
        """Return the number of clips."""
        return sum(len(shard.frames) for shard in self.shards)

    @property
    def frames(self) -> int:
        """Return the number of frames of all clips."""
        return sum(sum(shard.frames) for shard in self.shards)

    @property
    def seconds(self) -> float:
        """Return the total length of all clips in seconds."""
        return sum(n / rate for shard in self.shards for n, rate in zip(shard.frames, shard.fps, strict=True))

    @property
    def bytes(self) -> int:
        """Return the size of all shards in bytes."""
        return sum(shard.bytes for shard in (*self.shards, *self.texts))

    def to_json(self) -> str:
        """Return the text of manifest.json, one line a key."""
        counts = {name: getattr(self, name) for name in ("clips", "frames", "seconds", "bytes")}
        values = {"format": FORMAT, "version": VERSION, "counts": counts} | dataclasses.asdict(self)
        lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"


def load(directory: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of the data set in `directory`. ValueError when it is missing, or does not fit its shards."""
    directory = Path(directory)
    if not (directory / FILE).is_file():
        partial = partial_directory(directory)
        hint = f"; an unfinished one lies in {partial}: run the command that made it again" if partial.is_dir() else ""
        raise ValueError(f"{directory} is not a data set: expected a directory with a {FILE}{hint}.")
    manifest = parse((directory / FILE).read_bytes(), directory / FILE)
    for shard in (*manifest.shards, *manifest.texts):
        file = directory / shard.name
        if not file.is_file() or file.stat().st_size != shard.bytes:
            state = "is missing" if not file.is_file() else f"has {file.stat().st_size} bytes, not {shard.bytes}"
            raise ValueError(f"{directory} is damaged: {shard.name} {state}; build or copy the data set again.")
    return manifest


def parse(text: str | bytes, file: str | os.PathLike[str]) -> Manifest:
    """Invert `Manifest.to_json`. ValueError names the `file`, and what in it this version cannot read."""
    name = f"{os.fspath(file)} is not a manifest that this version can read"
    values = parse_json(text, dict[str, object], name)
    edition = [values.pop(key, None) for key in ("format", "version")]
    if edition != [FORMAT, VERSION]:
        raise ValueError(f"{name}: format and version are {' '.join(map(shorten, edition))}, not {FORMAT} {VERSION}.")
    counts = convert({"counts": values.pop("counts", {})}, _Head, name).counts
    manifest = convert(values, Manifest, name)
    try:
        _check_sums(manifest, counts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}.") from error
    return manifest


@dataclass(frozen=True)
class _Counts:
    """What manifest.json counts for its readers."""

    clips: Count
    frames: Count
    seconds: float | int
    bytes: Count


@dataclass(frozen=True)
class _Head:
    counts: _Counts


def _check_sums(manifest: Manifest, counts: _Counts) -> None:
    """Check that the parts of a manifest agree. ValueError where they do not."""
    for key in ("clips", "frames", "seconds", "bytes"):
        count, total = getattr(counts, key), getattr(manifest, key)
        if not math.isclose(count, total, rel_tol=1e-9):
            raise ValueError(f"counts.{key} is {shorten(count)}, but the shards have {shorten(total)}")
    if (total := sum(origin.clips for origin in manifest.origins)) != manifest.clips:
        raise ValueError(f"origins have {total} clips, but the shards {manifest.clips}")
    names = [shard.name for shard in (*manifest.shards, *manifest.texts)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two shards have the name {shorten(twice[0])}")


def _check_name(name: str) -> None:
    if Path(name).name != name or name in ("", "..", FILE):
        raise ValueError(f"a shard lies in its data set's directory, and {shorten(name)} is no name there")


def records(directory: str | os.PathLike[str]) -> RecordSource:
    """Open all records of a data set for random access, in the order in which they were written."""
    manifest = load(directory)
    source = RecordSource([Path(directory) / shard.name for shard in manifest.shards])
    check_length(directory, manifest, len(source))
    return source


def check_length(directory: str | os.PathLike[str], manifest: Manifest, records: int) -> None:
    """Check that the shards of a data set hold as many records as its manifest says. ValueError if not."""
    if records != manifest.clips:
        raise ValueError(f"{directory} is damaged: its shards hold {records} records, not {manifest.clips}.")


def find_damaged_shards(directory: str | os.PathLike[str]) -> list[str]:
    """Return the names of shards whose bytes have changed since they were written; reads every shard."""
    manifest = load(directory)
    shards = (*manifest.shards, *manifest.texts)
    return [shard.name for shard in shards if sha256(Path(directory) / shard.name) != shard.sha256]


def build(
    directory: str | os.PathLike[str],
    make: Callable[[range], Iterable[Record]],
    clips: int,
    *,
    shards: int = 1,
    name: str = "clips",
    info: Mapping[str, Any],
    left_out: Sequence[LeftOut] = (),
    progress: Progress | None = None,
) -> Manifest:
    """Write a data set of `clips` records over `shards` even shards; returns its manifest.

    `make(range)` yields the records with those numbers; it is called once for every shard that is not there yet, so it
    must depend only on the numbers and on `info`. `info` is plain JSON. Nothing is done when `directory`
    already holds the data set of the same `info`. ValueError when it holds anything else, on no clips at all, or when
    another process builds there.
    """
    directory = Path(directory)
    info = json.loads(json.dumps(info))
    if (finished := already_built(directory, info)) is not None:
        return finished
    if clips < 1 or not 1 <= shards <= clips:
        raise ValueError(f"A data set needs at least one clip a shard, not {clips} clips in {shards} shards.")
    with lock(directory):
        if (finished := already_built(directory, info)) is not None:
            return finished  # by another process, in the meantime
        return build_locked(
            directory, make, clips, shards=shards, name=name, info=info, left_out=left_out, progress=progress
        )


def build_locked(
    directory: Path,
    make: Callable[[range], Iterable[Record]],
    clips: int,
    *,
    shards: int = 1,
    name: str = "clips",
    info: Mapping[str, Any],
    left_out: Sequence[LeftOut] = (),
    progress: Progress | None = None,
) -> Manifest:
    """Write a data set as `build`, which is not there yet, for a caller that has its `lock`."""
    partial = start(directory, info)
    names = [shard_name(name, index, shards) for index in range(shards)]
    described = []
    for shard, numbers in zip(names, even_ranges(clips, shards), strict=True):
        if not (partial / shard).exists():
            report = (lambda done: None) if progress is None else lambda done: progress("write", done, clips)
            write_shard(partial / shard, _counted(make(numbers), numbers, report))
        described.append(describe(partial / shard))
    return finish(directory, described, info=info, left_out=left_out)


def lock(directory: Path) -> DirectoryLock:
    """Return the lock on a data set that is being built, a hidden file beside it."""
    return DirectoryLock(directory.with_name(f".{directory.name}.lock"), directory)


def start(directory: Path, info: Mapping[str, Any]) -> Path:
    """Return the partial directory, created if missing; shards of other `info` are deleted."""
    partial = partial_directory(directory)
    partial.mkdir(parents=True, exist_ok=True)
    note = partial / _INFO
    shards = any(partial.glob("*.array_record"))
    if shards and not (note.exists() and is_json_of(note.read_bytes(), info)):
        logging.getLogger(__name__).warning("%s: unfinished shards made from other input are discarded.", partial)
        for shard in partial.glob("*.array_record"):
            shard.unlink()
    write_whole(note, json.dumps(info))
    return partial


def distrust(directory: Path) -> None:
    """Have the next `start` discard the shards of the partial directory, whose input was not what it was taken for."""
    (partial_directory(directory) / _INFO).unlink(missing_ok=True)


@dataclass(frozen=True)
class Described:
    """A finished shard: its entry in the manifest, the origins of its clips, and their contents."""

    shard: Shard
    origins: tuple[Origin, ...]
    content: Content

    @staticmethod
    def from_json(values: Mapping[str, Any], name: str = "a shard's description") -> "Described":
        """Invert `dataclasses.asdict`, and what JSON makes of it; `name` is for errors."""
        return convert(values, Described, name)


def describe(path: Path) -> Described:
    """Return the facts of a finished shard, read back from its file. ValueError when it holds videos and latents."""
    clips, origins, contents = [], Counter(), set()
    for record in RecordSource([path]):
        clips.append((record.frames, record.fps, record.height, record.width))
        origins[record.source, record.licence] += 1
        contents.add("video" if record.latent is None else "latent")
    if len(contents) != 1:
        raise ValueError(f"{path}: a data set holds videos or latents, not both.")
    shard = Shard(path.name, sha256(path), path.stat().st_size, *zip(*clips, strict=True))
    return Described(shard, tuple(Origin(*origin, count) for origin, count in origins.items()), contents.pop())


def compose(
    directory: str | os.PathLike[str],
    described: Sequence[Described],
    *,
    info: Mapping[str, Any],
    left_out: Sequence[LeftOut] = (),
) -> Manifest:
    """Return the manifest of shards; `directory` is for errors. ValueError when they hold videos and latents."""
    contents = {each.content for each in described}
    if len(contents) != 1:
        raise ValueError(f"{directory}: a data set holds videos or latents, not both.")
    origins: Counter[tuple[str, str]] = Counter()
    for origin in (origin for each in described for origin in each.origins):
        origins[origin.source, origin.licence] += origin.clips
    shards = tuple(each.shard for each in described)
    clips_by_origin = tuple(Origin(*origin, count) for origin, count in sorted(origins.items()))
    return Manifest(contents.pop(), shards, clips_by_origin, tuple(left_out), info, versions())


def finish(
    directory: Path,
    described: Sequence[Described],
    *,
    info: Mapping[str, Any],
    left_out: Sequence[LeftOut] = (),
    extra: Sequence[str] = (),
    texts: Sequence[TextShard] = (),
) -> Manifest:
    """Turn the partial directory, whose shards are all there, into the data set, the manifest last.

    Of what else lies there (the maker's notes, such as a journal) only the files and folders named in `extra` stay.
    """
    manifest = dataclasses.replace(compose(directory, described, info=info, left_out=left_out), texts=tuple(texts))
    partial = partial_directory(directory)
    kept_names = {*extra, *(shard.name for shard in (*manifest.shards, *manifest.texts))}
    for leftover in partial.iterdir():
        if leftover.name not in kept_names and leftover.name != _INFO:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    write_whole(partial / FILE, manifest.to_json())
    partial.rename(directory)
    sync_directory(directory.parent)
    (directory / _INFO).unlink(missing_ok=True)  # last: it identifies the input of unfinished shards
    return manifest


def already_built(directory: Path, info: Mapping[str, Any]) -> Manifest | None:
    """Return the finished data set in `directory` if it is that of `info`, None if there is nothing yet.

    ValueError when there is something else, which is never overwritten, or nothing and it cannot be created.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        check_creatable(directory)
        return None
    if not (directory / FILE).exists():
        raise ValueError(f"{directory} exists and is not a data set; choose another directory, nothing was written.")
    return check_same(load(directory), info, directory)


def check_same(manifest: Manifest, info: Mapping[str, Any], directory: str | os.PathLike[str]) -> Manifest:
    """Return the manifest of a finished data set. ValueError unless it is that of `info`, naming what differs."""
    if manifest.info != info:
        changed = sorted(key for key in {*manifest.info, *info} if manifest.info.get(key) != info.get(key))
        raise ValueError(
            f"{directory} already holds a data set made from other input ({', '.join(map(show_key, changed))} differ); "
            "choose another directory or remove it, nothing was written."
        )
    return manifest


def is_json_of(text: bytes, info: Mapping[str, Any]) -> bool:
    """Return whether the note of a data set that is being built is that of `info`; a damaged one is not."""
    try:
        return parse_json(text, dict[str, object], _INFO) == info
    except ValueError:
        return False


def partial_directory(directory: Path) -> Path:
    """Return the directory of a data set that is being built."""
    return directory.with_name(directory.name + ".partial")


def write_whole(path: Path, text: str) -> None:
    """Write a text file as `replace_whole`: readers see all of it or nothing."""
    with replace_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _counted(records: Iterable[Record], numbers: range, report: Callable[[int], None]) -> Iterable[Record]:
    done = numbers.start
    for record in records:
        yield record
        done += 1
        report(done)
    if done != numbers.stop:
        count = done - numbers.start
        raise ValueError(f"{len(numbers)} records were to be made from number {numbers.start} on, not {count}.")


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    package_versions = {}
    for package in ("videodit", "numpy", "av", "array_record"):
        try:
            package_versions[package] = version(package)
        except PackageNotFoundError:  # used from a checkout
            package_versions[package] = "not installed"
    return package_versions
