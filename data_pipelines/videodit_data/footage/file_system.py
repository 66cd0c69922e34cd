"""Files on any file system: local paths are used directly, others (gs://, s3://, hdfs://) through Beam."""

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from videodit_data.storage.whole_file import replace_whole

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AS_IT_IS = CompressionTypes.UNCOMPRESSED


def is_remote(path: str) -> bool:
    """Return whether a path starts with the scheme of a file system; one that only holds an address is local."""
    return _SCHEME.match(path) is not None


def join(directory: str, *names: str) -> str:
    """Return a path below a directory."""
    return FileSystems.join(directory, *names) if is_remote(directory) else os.path.join(directory, *names)


def exists(path: str) -> bool:
    """Return whether there is such a file."""
    return FileSystems.exists(path) if is_remote(path) else os.path.exists(path)


def state(path: str) -> str:
    """Return a string that changes with a file: its size and time, or the checksum of another file system."""
    if is_remote(path):
        return str(FileSystems.checksum(path))
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns}"


def make_folder(path: str) -> None:
    """Make a folder, where folders exist apart from files."""
    if not is_remote(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    elif not FileSystems.exists(path):
        FileSystems.mkdirs(path)


def files(folder: str) -> dict[str, str]:
    """Return the paths of the files in a folder and below it, by their names relative to it."""
    if not is_remote(folder):
        paths = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): str(path) for path in sorted(paths)}
    start = folder.rstrip("/") + "/"
    (result,) = FileSystems.match([start + "**"])
    return {each.path.removeprefix(start): each.path for each in sorted(result.metadata_list, key=lambda m: m.path)}


def read(path: str) -> bytes:
    """Return all bytes of a file."""
    if not is_remote(path):
        return Path(path).read_bytes()
    with FileSystems.open(path, compression_type=_AS_IT_IS) as file:
        return file.read()


def write(path: str, data: bytes, *, once: bool = False) -> None:
    """Write a file atomically, as `open_for_writing`, replacing an existing file unless `once`."""
    with open_for_writing(path, once=once) as scratch:
        scratch.write_bytes(data)


@contextmanager
def open_for_writing(path: str, *, once: bool = True) -> Iterator[Path]:
    """Open a local file to write, which becomes `path` if no error is raised, and is deleted otherwise.

    Args:
        once: keep an existing file, whose path identifies its bytes.
    """
    suffix = f".{uuid.uuid4().hex}.tmp"
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (local := Path(folder, "file"))
            scratch = path + suffix
            with local.open("rb") as file, FileSystems.create(scratch, compression_type=_AS_IT_IS) as there:
                shutil.copyfileobj(file, there)
            if once and exists(path):
                delete([scratch])
            else:
                rename(scratch, path)
        return
    with replace_whole(Path(path), suffix) as local:
        yield local


@contextmanager
def open_local(path: str, most: int | None = None) -> Iterator[Path]:
    """Open a file to read under a local path: its own, or that of a copy, which is deleted afterwards.

    most: bytes that are copied of a larger file, None for all.
    """
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, path.rsplit("/", 1)[1])
        with FileSystems.open(path, compression_type=_AS_IT_IS) as file, local.open("wb") as copy:
            shutil.copyfileobj(file, copy) if most is None else copy.write(file.read(most))
        yield local


def delete(paths: list[str]) -> None:
    """Delete files."""
    for path in paths:
        os.unlink(path) if not is_remote(path) else FileSystems.delete([path])


def rename(path: str, to: str) -> None:
    """Rename a file, replacing an existing one."""
    if not is_remote(path):
        os.replace(path, to)
        return
    if exists(to):  # not every file system renames over a file
        delete([to])
    FileSystems.rename([path], [to])
