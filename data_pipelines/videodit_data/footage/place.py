"""Where a build lies: OUT.partial while it is being made, OUT when it is whole; here or on another file system."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videodit_data import manifest
from videodit_data.footage import storage
from videodit_data.footage.decisions import FOLDER as DECISIONS
from videodit_data.footage.decisions import THUMBNAILS
from videodit_data.manifest import Described, LeftOut, Manifest

BESIDE = (DECISIONS, THUMBNAILS, "notes.json")  # what stays of the partial directory beside shards and manifest
NOTES = "shards"  # what shards hold
_MADE = (DECISIONS, THUMBNAILS, NOTES)  # from one input and configuration alone; the rest serves others too


def partial(out: str) -> str:
    """The directory in which a data set lies while it is being built."""
    return out.rstrip("/") + ".partial"


def refuse(out: str, info: Mapping[str, Any]) -> None:
    """ValueError when a data set of other `info` is in `out`, as far as `info` goes."""
    file = storage.join(out, manifest.FILE)
    if storage.exists(file):
        there = manifest.parse(storage.read(file).decode(), file).info
        finished(out, {**there, **info})
    elif not storage.exists(storage.join(partial(out), manifest.FILE)):
        finished(out, info)


def finished(out: str, info: Mapping[str, Any]) -> Manifest | None:
    """The data set in `out` if it is that of `info`, None if there is nothing yet. ValueError for something else.

    What an interruption left half moved there is moved to its end.
    """
    if not storage.is_remote(out):
        return manifest.already_built(Path(out), info)
    file, moving = storage.join(out, manifest.FILE), storage.join(partial(out), manifest.FILE)
    if storage.exists(file):
        return manifest.check_same(manifest.parse(storage.read(file).decode(), file), info, out)
    made = manifest.parse(storage.read(moving).decode(), moving) if storage.exists(moving) else None
    if made is not None and made.info == info:
        return _move(out, made)
    if storage.files(out):
        found = "is not a data set" if made is None else "holds part of a data set made from other input"
        raise ValueError(f"{out} exists and {found}; choose another place, nothing was written.")
    return None


def begin(out: str, info: Mapping[str, Any]) -> str:
    """The partial directory, made if need be, without what other `info` left there apart from what was decoded."""
    directory = partial(out)
    for name in ("", "analysis", "clips", "captions", *_MADE):
        storage.make_folder(storage.join(directory, name) if name else directory)
    note = storage.join(directory, "info.json")
    if storage.exists(note) and json.loads(storage.read(note)) != info:
        logging.getLogger(__name__).warning("%s: what was made from other input is discarded.", directory)
        stale = (path for name, path in storage.files(directory).items() if _made(name))
        storage.delete(list(stale))
    storage.write(note, json.dumps(info).encode())
    return directory


def finish(out: str, described: Sequence[Described], info: Mapping[str, Any], left_out: Sequence[LeftOut]) -> Manifest:
    """Turns the partial directory into the data set, the manifest last."""
    for folder in (DECISIONS, THUMBNAILS):  # what a worker that was killed left half-written
        found = storage.files(storage.join(partial(out), folder))
        storage.delete([path for name, path in found.items() if name.endswith(".tmp")])
    if not storage.is_remote(out):
        return manifest.finish(Path(out), described, info=info, left_out=left_out, beside=BESIDE)
    made = manifest.compose(out, described, info=info, left_out=left_out)
    storage.write(storage.join(partial(out), manifest.FILE), made.to_json().encode())
    return _move(out, made)


def _move(out: str, made: Manifest) -> Manifest:
    """Moves what stays of a partial directory that is complete, its manifest last, and deletes the rest."""
    kept = {shard.name for shard in made.shards}
    rest = []
    for name, path in storage.files(partial(out)).items():
        if name in kept or name.split("/")[0] in BESIDE:
            storage.rename(path, storage.join(out, *name.split("/")))
        elif name != manifest.FILE:
            rest.append(path)
    storage.delete(rest)
    storage.rename(storage.join(partial(out), manifest.FILE), storage.join(out, manifest.FILE))
    return made


def _made(name: str) -> bool:
    return name.endswith(".array_record") or name == manifest.FILE or name.split("/")[0] in _MADE
