"""Output directories that appear only when they are complete."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videodit.checkpoint.disk_error import explain_write_errors

TRANSFORMERS = ("transformer", "transformer_2")


def check_new(path: Path) -> None:
    """Raise ValueError if `path` exists and is not an empty directory."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists: --to must be a new directory")


@contextmanager
def create_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that is renamed to `path` on success, and removed on failure.

    Raises:
        ValueError: if `path` exists and is not an empty directory, or another process creates it.
        DiskError: if the disk is full, read-only or failing.
    """
    check_new(path)
    partial = path.with_name(path.name + ".part")
    with _lock(partial, path), explain_write_errors(path):
        try:
            for leftover in partial.iterdir():  # of a process that was killed
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if path.exists():
            path.rmdir()
        os.replace(partial, path)


@contextmanager
def _lock(partial: Path, path: Path) -> Iterator[None]:
    """Hold a directory, created if missing, for this process alone, where its file system can tell processes apart."""
    partial.mkdir(parents=True, exist_ok=True)
    folder = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path} is being written by another process: wait for its end") from None
        except OSError:  # a network file system without locks on directories
            pass
        yield
    finally:
        os.close(folder)
