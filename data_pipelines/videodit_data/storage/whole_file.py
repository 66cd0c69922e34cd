"""Files written whole or not at all, and disk errors that name the file; as `videodit.checkpoint.atomic_write`."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def replace_whole(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces what is at `path` on success and is removed on failure.

    It is on the disk before it does, so that a machine that loses power leaves the old file or the whole new one.

    Args:
        suffix: of the temporary file's name; one of its own where several processes may write `path` at once.
    """
    scratch = path.with_name(path.name + suffix)
    try:
        with name_disk_errors(path):
            yield scratch
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(scratch, path)
            sync_directory(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def check_creatable(path: Path, *, is_file: bool = False) -> None:
    """Check that a folder, or with `is_file` a file, can be created at `path` or replaced there. ValueError if not.

    So can the folders above it. What only a write can tell, such as a full disk, it does not know.
    """
    path = path.absolute()
    if is_file and path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder; choose another place.")
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path} cannot be written: it is a link to nothing; choose another place.")
    above = next(folder for folder in (*path.parents, path) if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{path} cannot be written: {above} is not a folder; choose another place.")
    if not os.access(above, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(above).f_flag & os.ST_RDONLY
        reason = f"the file system of {above} is read-only" if is_read_only else f"you may not write to {above}"
        raise ValueError(f"{path} cannot be written: {reason}; choose another place.")


def sync_directory(directory: Path) -> None:
    """Have the names of a directory's files on the disk when this returns, where the system can do that."""
    if os.name != "posix":
        return  # others open no directories
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # of file systems that sync no directories
            raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to an open file, and have them on the disk when this returns."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


@contextmanager
def name_disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in the errors of a full, read-only or failing disk: writing to an open file names none.

    ArrayRecord has the system's error in its message alone.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            error.filename = os.fspath(path)
        raise
    except RuntimeError as error:
        for code in DISK_ERRORS:
            if f"failed: {os.strerror(code)}" in str(error):
                raise OSError(code, os.strerror(code), os.fspath(path)) from error
        raise
