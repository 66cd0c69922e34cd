"""Describe what the file system refused: which file, what a write needed, what is free, what is saved."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "make room and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "make room and run the same command again"),
    errno.EFBIG: ("a file may not be so large there", "raise the limit (`ulimit -f`) or choose another file system"),
    errno.EROFS: ("the file system is read-only", "mount it writable or choose another directory"),
    errno.EIO: ("the disk failed", "check the disk, or choose another one"),
}
"""What an error number says, and what to do."""


class DiskError(OSError):
    """A write that the file system refused, or a read that failed, as one sentence."""


@contextmanager
def explain_write_errors(path: Path, *, needed: int | None = None, workdir: Path | None = None) -> Iterator[None]:
    """Turn the errors of a full, read-only or failing disk into a `DiskError`; arguments as `describe_write_error`."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        sentence = describe_write_error(error, path, needed=needed, workdir=workdir)
        if sentence is None or isinstance(error, DiskError):
            raise
        raise DiskError(sentence) from error


def describe_write_error(
    error: BaseException, path: Path, *, needed: int | None = None, workdir: Path | None = None
) -> str | None:
    """Return what a full, read-only or failing disk did to a write, as one sentence; None for any other error.

    Errors of libraries that carry the system's error as their cause or in their text count too.

    Args:
        path: the file or directory that could not be written.
        needed: its size in bytes, if known.
        workdir: of the run whose last checkpoint is named; the directory of `path` if None and it has checkpoints.
    """
    if isinstance(error, DiskError):
        return str(error)
    code = find_error_number(error)
    if code is None:
        return None
    cause, remedy = _CAUSES[code]
    size = "" if needed is None else f"it needs {format_bytes(needed)}, and "
    if workdir is None and (path.parent / "checkpoints").is_dir():
        workdir = path.parent
    saved = "" if workdir is None else f"; {_describe_last_checkpoint(workdir)}"
    action = "read or written" if code == errno.EIO else "written"
    return f"{path} could not be {action}, since {cause} ({size}{_describe_free(path)}){saved}; {remedy}"


def find_error_number(error: BaseException) -> int | None:
    """Return the system's number of what a full, read-only or failing disk raised; None for any other error."""
    return next((code for code in map(_error_number, walk_causes(error)) if code in _CAUSES), None)


def walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, those of its group, and its causes; the last one is what led to it."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from walk_causes(member)
        error = error.__cause__ or error.__context__


def format_bytes(count: int) -> str:
    """Return a number of bytes with a decimal unit, such as 1.4 MB."""
    size, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def _describe_free(path: Path) -> str:
    """Return the free bytes and inodes of the file system that a path is or would be on."""
    try:
        directory = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        free, status = format_bytes(shutil.disk_usage(directory).free), os.statvfs(directory)
    except OSError:
        return "its free space is unknown"
    inodes = f" and {status.f_favail} of {status.f_files} inodes" if status.f_files else ""
    return f"{free}{inodes} are free"


def _describe_last_checkpoint(workdir: Path) -> str:
    try:
        steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    except OSError:
        steps = []
    return describe_last_step(max(steps, default=None))


def describe_last_step(step: int | None) -> str:
    """Return a phrase about the last good checkpoint, of a step, or that there is none."""
    return "there is no checkpoint yet" if step is None else f"the last good checkpoint is that of step {step}"


def _error_number(error: BaseException) -> int | None:
    """Return the system's error number; TensorStore and Riegeli have it, or what it means, in their messages."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if (match := re.search(r"os_error_code='(\d+)'|\[OS error (\d+)", text)) is not None:
        return int(match[1] or match[2])
    return next((code for code in _CAUSES if os.strerror(code) in text), None)
