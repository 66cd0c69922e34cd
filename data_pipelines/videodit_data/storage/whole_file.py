"""Files written whole or not at all, and disk errors that name the file."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def replace_whole(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces what is at `path` on success and is removed on failure.

    Args:
        suffix: of the temporary file's name; one of its own where several processes may write `path` at once.
    """
    scratch = path.with_name(path.name + suffix)
    try:
        with name_disk_errors(path):
            yield scratch
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


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
