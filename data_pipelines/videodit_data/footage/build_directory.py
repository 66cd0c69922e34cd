"""The directory of a build: OUT.partial while it runs, OUT when it is complete; local or on another file system."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videodit_data.footage import file_system
from videodit_data.footage.decisions import FOLDER as DECISIONS
from videodit_data.footage.decisions import THUMBNAILS
from videodit_data.storage import manifest
from videodit_data.storage.manifest import Described, LeftOut, Manifest

EXTRA = (DECISIONS, THUMBNAILS, "notes.json")  # kept of the partial directory apart from shards and manifest
NOTES = "shards"  # notes of the shards' contents
_INPUT_DEPENDENT = (DECISIONS, THUMBNAILS, NOTES)  # of one input and configuration; the rest is reusable


def partial(out: str) -> str:
    """Return the directory in which a data set lies while it is being built."""
    return out.rstrip("/") + ".partial"


def check_unused(out: str, info: Mapping[str, Any]) -> None:
    """Check that a data set in `out` agrees with `info`, as far as `info` goes. ValueError when it differs."""
    file = file_system.join(out, manifest.FILE)
    if file_system.exists(file):
        there = manifest.parse(file_system.read(file), file).info
        find_finished(out, {**there, **info})
    elif not file_system.exists(file_system.join(partial(out), manifest.FILE)):
        find_finished(out, info)


def find_finished(out: str, info: Mapping[str, Any]) -> Manifest | None:
    """Return the data set in `out` if it is that of `info`, None if there is none. ValueError for something else.

    A move that was interrupted is completed.
    """
    if not file_system.is_remote(out):
        return manifest.already_built(Path(out), info)
    file, moving = file_system.join(out, manifest.FILE), file_system.join(partial(out), manifest.FILE)
    if file_system.exists(file):
        return manifest.check_same(manifest.parse(file_system.read(file), file), info, out)
    built = manifest.parse(file_system.read(moving), moving) if file_system.exists(moving) else None
    if built is not None and built.info == info:
        return _move(out, built)
    if file_system.files(out):
        problem = "is not a data set" if built is None else "holds part of a data set made from other input"
        raise ValueError(f"{out} exists and {problem}; choose another directory, nothing was written.")
    return None


def open_partial(out: str, info: Mapping[str, Any]) -> str:
    """Return the partial directory, created if missing; files of other `info` are deleted, except decoded ones."""
    directory = partial(out)
    for name in ("", "analysis", "clips", "captions", *_INPUT_DEPENDENT):
        file_system.make_folder(file_system.join(directory, name) if name else directory)
    note = file_system.join(directory, "info.json")
    if file_system.exists(note) and not manifest.is_json_of(file_system.read(note), info):
        logging.getLogger(__name__).warning("%s: what was made from other input is discarded.", directory)
        stale = (path for name, path in file_system.files(directory).items() if _depends_on_input(name))
        file_system.delete(list(stale))
    file_system.write(note, json.dumps(info).encode())
    return directory


def finish(out: str, described: Sequence[Described], info: Mapping[str, Any], left_out: Sequence[LeftOut]) -> Manifest:
    """Turn the partial directory into the data set, the manifest last."""
    for folder in (DECISIONS, THUMBNAILS):  # unfinished files of killed workers
        files = file_system.files(file_system.join(partial(out), folder))
        file_system.delete([path for name, path in files.items() if name.endswith(".tmp")])
    if not file_system.is_remote(out):
        return manifest.finish(Path(out), described, info=info, left_out=left_out, extra=EXTRA)
    built = manifest.compose(out, described, info=info, left_out=left_out)
    file_system.write(file_system.join(partial(out), manifest.FILE), built.to_json().encode())
    return _move(out, built)


def _move(out: str, built: Manifest) -> Manifest:
    """Move the results of a complete partial directory, its manifest last, and delete the rest."""
    shard_names = {shard.name for shard in built.shards}
    rest = []
    for name, path in file_system.files(partial(out)).items():
        if name in shard_names or name.split("/")[0] in EXTRA:
            file_system.rename(path, file_system.join(out, *name.split("/")))
        elif name != manifest.FILE:
            rest.append(path)
    file_system.delete(rest)
    file_system.rename(file_system.join(partial(out), manifest.FILE), file_system.join(out, manifest.FILE))
    return built


def _depends_on_input(name: str) -> bool:
    return name.endswith(".array_record") or name == manifest.FILE or name.split("/")[0] in _INPUT_DEPENDENT
