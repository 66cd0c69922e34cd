"""Ingestion of a folder of captioned video files: decodes every file once, and reports every unused file.

The facts of each file are kept in a journal in `OUT.partial`, by the hash of its bytes: a run that was
interrupted resumes where it stopped, and ends with the same bytes as one that was not.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from videodit_data import caption_files
from videodit_data.boundary.input_files import InputFolder, Walk, open_regular
from videodit_data.boundary.typed_json import Sha256, parse_json
from videodit_data.storage.manifest import (
    FILE,
    LeftOut,
    Manifest,
    Progress,
    already_built,
    build_locked,
    lock,
    partial_directory,
)
from videodit_data.storage.records import Record
from videodit_data.storage.whole_file import name_disk_errors
from videodit_data.thread_pool import ordered_map
from videodit_data.video import VideoError, VideoInfo
from videodit_data.video.files import NOT_UNICODE, VIDEOS, is_video, printable
from videodit_data.video.isolate import Verifier, check_info

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class _File:
    """A video file that has captions."""

    name: str  # its path below the input folder
    path: Path
    captions: tuple[str, ...]
    source: str
    licence: str


def ingest(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    captions: str | os.PathLike[str] | None = None,
    source: str | None = None,
    licence: str = "unnoted",
    clips_per_shard: int = 256,
    threads: int | None = None,
    follow_links: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Build a data set in `out` from the videos in `folder` and below; returns its manifest.

    Captions come from a .json or .txt of the video's name, or else from a table (`captions`, or captions.jsonl, .csv or
    .tsv in the folder or the one above it). `source` (the folder's name if None) and `licence` apply where the captions
    have none. Files that cannot be used are left out and listed with the reason, links out of the folder too unless
    `follow_links`; the input is only read. `threads` decode concurrently (up to 4 if None). Nothing is done when `out`
    is already built from the same input. ValueError when the folder or table cannot be read, no clip remains, `out`
    holds something else, or another process builds there.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of videos.")
    if clips_per_shard < 1:
        raise ValueError(f"A shard holds at least one clip, not {clips_per_shard}.")
    if not (out / FILE).exists():
        already_built(out, {})  # before all input is read
    report = progress or (lambda stage, done, total: None)
    threads = threads or min(4, os.cpu_count() or 1)

    tree = InputFolder(folder, follow_links)
    found = tree.walk({os.path.realpath(out), os.path.realpath(partial_directory(out))})
    table = caption_files.find_table(folder, None if captions is None else Path(captions))
    tabled, left_out = _match(table, captions is not None, tree, found.files)
    files, unused = _survey(tree, found, table, tabled, source or folder.resolve().name, licence)
    left_out += unused
    hashes = _hash(tree, files, threads, report)
    info = {"made_by": "ingest", "clips_per_shard": clips_per_shard, "input": _digest(files, hashes, left_out)}
    if (finished := already_built(out, info)) is not None:
        return finished

    with lock(out):
        if (finished := already_built(out, info)) is not None:
            return finished  # by another process, in the meantime
        partial = partial_directory(out)
        partial.mkdir(parents=True, exist_ok=True)
        facts = _verify(files, hashes, partial / _JOURNAL, threads, report)
        left_out += [LeftOut(file.name, fact) for file, fact in zip(files, facts, strict=True) if isinstance(fact, str)]
        left_out.sort(key=lambda item: item.file)
        good = [clip for clip in zip(files, hashes, facts, strict=True) if isinstance(clip[2], VideoInfo)]
        if not good:
            shutil.rmtree(partial)
            reasons = "".join(f"\n  {item.file}: {item.reason}" for item in left_out[:10])
            raise ValueError(f"{folder} holds no video that can be used; {len(left_out)} files were left out:{reasons}")

        def make(numbers: range) -> Iterator[Record]:
            return (_record(tree, *good[number]) for number in numbers)

        shards = -(-len(good) // clips_per_shard)
        return build_locked(out, make, len(good), shards=shards, info=info, left_out=left_out, progress=progress)


def _survey(
    tree: InputFolder,
    found: Walk,
    table: Path | None,
    tabled: dict[str, caption_files.Captions | caption_files.OddRow],
    source: str,
    licence: str,
) -> tuple[list[_File], list[LeftOut]]:
    """Return videos with captions, by name, and all other files with the reason why they are not used."""
    left_out = [LeftOut(printable(name), reason) for name, reason in found.unusable.items()]
    stems = {path.with_suffix("") for path in found.files.values() if is_video(path)}
    files = []
    for name, path in sorted(found.files.items()):
        if not is_video(path):
            is_caption_file = path.suffix in caption_files.SIDECARS
            used = table is not None and path.resolve() == table.resolve()
            if not used and not (is_caption_file and path.with_suffix("") in stems):
                kind = "a caption file without a video of its name" if is_caption_file else "not a video file"
                left_out.append(LeftOut(printable(name), f"{kind} ({', '.join(VIDEOS)})"))
            continue
        if printable(name) != name:
            left_out.append(LeftOut(printable(name), NOT_UNICODE))
            continue
        if not os.access(path, os.R_OK):
            left_out.append(LeftOut(name, "may not be read"))
            continue
        try:
            captions = caption_files.read_sidecar(path, tree.open) or tabled.get(name)
        except ValueError as error:
            left_out.append(LeftOut(name, str(error)))
            continue
        if isinstance(captions, caption_files.OddRow):
            left_out.append(LeftOut(name, captions.reason))
        elif captions is None or not captions.texts:
            left_out.append(LeftOut(name, "no caption"))
        else:
            files.append(_File(name, path, captions.texts, captions.source or source, captions.licence or licence))
    return files, left_out


def _match(
    table: Path | None, is_given: bool, tree: InputFolder, paths: dict[str, Path]
) -> tuple[dict[str, caption_files.Captions | caption_files.OddRow], list[LeftOut]]:
    """Return the table's rows by the file they name, relative to the folder or to the table, and unmatched rows."""
    if table is None:
        return {}, []
    tabled, left_out = {}, []
    names = {path.resolve(): name for name, path in paths.items()}
    open_table = open_regular if is_given else InputFolder(table.parent, tree.follow_links).open
    rows, nameless = caption_files.read_table(table, open_table)
    left_out += [LeftOut(printable(table.name), row.reason) for row in nameless]
    for file, captions in rows.items():
        candidates = [(tree.root / file), (table.parent / file)]
        matches = [names[path.resolve()] for path in candidates if path.resolve() in names]
        if matches:
            tabled[matches[0]] = captions
        elif isinstance(captions, caption_files.OddRow):
            left_out.append(LeftOut(file, captions.reason))
        elif not any(map(os.path.exists, candidates)):
            left_out.append(LeftOut(file, f"named in {table.name}, but not there"))
    return tabled, left_out


def _hash(tree: InputFolder, files: Sequence[_File], threads: int, report: Progress) -> list[str]:
    def hash_one(file: _File) -> str:
        with _open(tree, file.path) as data:
            return hashlib.file_digest(data, "sha256").hexdigest()

    hashes = []
    for value in ordered_map(hash_one, files, threads):
        hashes.append(value)
        report("hash", len(hashes), len(files))
    return hashes


def _open(tree: InputFolder, path: Path) -> BufferedIOBase:
    try:
        return tree.open(path)
    except ValueError as error:
        raise ValueError(f"{path} changed while it was ingested ({error}); run the command again.") from error


def _digest(files: Sequence[_File], hashes: Sequence[str], left_out: Sequence[LeftOut]) -> str:
    """Return one hash over the whole input of the data set."""
    clips = [[f.name, digest, f.captions, f.source, f.licence] for f, digest in zip(files, hashes, strict=True)]
    return hashlib.sha256(json.dumps([clips, [asdict(item) for item in left_out]]).encode()).hexdigest()


def _verify(
    files: Sequence[_File], hashes: Sequence[str], journal: Path, threads: int, report: Progress
) -> list[VideoInfo | str]:
    """Return the facts of each file, or why it cannot be used; only files that the journal lacks are decoded."""
    journal_facts = _read_journal(journal)

    def examine(clip: tuple[_File, str]) -> VideoInfo | str:
        file, digest = clip
        if (file.name, digest) in journal_facts:
            return journal_facts[file.name, digest]
        try:
            return verifier(file.path, name=file.name)
        except VideoError as error:
            return str(error).removeprefix(f"{file.name}: ").removesuffix(".")

    facts: list[VideoInfo | str] = []
    with Verifier() as verifier, name_disk_errors(journal), journal.open("a", encoding="utf-8") as notes:
        clips = list(zip(files, hashes, strict=True))
        for (file, digest), fact in zip(clips, ordered_map(examine, clips, threads), strict=True):
            if (file.name, digest) not in journal_facts:
                fields: Any = fact if isinstance(fact, str) else asdict(fact)
                notes.write(json.dumps({"file": file.name, "sha256": digest, "fact": fields}) + "\n")
                notes.flush()
            facts.append(fact)
            report("verify", len(facts), len(files))
    return facts


@dataclass(frozen=True)
class _Note:
    """A line of the journal: the facts of a file, or why it cannot be used."""

    file: str
    sha256: Sha256
    fact: VideoInfo | str

    def __post_init__(self) -> None:
        if isinstance(self.fact, VideoInfo):
            check_info(self.fact)


def _read_journal(journal: Path) -> dict[tuple[str, str], VideoInfo | str]:
    """Read the journal of earlier runs; an incomplete last line is cut off."""
    journal_facts: dict[tuple[str, str], VideoInfo | str] = {}
    if not journal.exists():
        return journal_facts
    data = journal.read_bytes()
    if not data.endswith(b"\n"):
        data = data[: data.rfind(b"\n") + 1]
        os.truncate(journal, len(data))
    for number, line in enumerate(data.splitlines(), 1):
        note = parse_json(line, _Note, f"{journal}, line {number}", nul=True)
        journal_facts[note.file, note.sha256] = note.fact
    return journal_facts


def _record(tree: InputFolder, file: _File, digest: str, info: VideoInfo) -> Record:
    with _open(tree, file.path) as opened:
        data = opened.read()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{file.path} changed while it was ingested; run the command again.")
    return Record(
        id=file.name,
        video=data,
        captions=file.captions,
        fps=info.fps,
        height=info.height,
        width=info.width,
        frames=info.frames,
        source=file.source,
        licence=file.licence,
        sha256=digest,
        caption_sources=("file",) * len(file.captions),
    )
