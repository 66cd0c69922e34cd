"""Files written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videodit.checkpoint.disk_error import explain_write_errors


@contextmanager
def replace_atomically(path: Path, *, needed: int | None = None, workdir: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces what is at `path` on success and is removed on failure.

    Args:
        needed, workdir: as `describe_write_error`.

    Raises:
        DiskError: when the disk is full, read-only or failing.
    """
    partial = path.with_name(path.name + ".part")
    try:
        with explain_write_errors(path, needed=needed, workdir=workdir):
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file that replaces what is at `path` once it is complete; errors as `replace_atomically`."""
    content = text.encode()
    with replace_atomically(path, needed=len(content)) as partial:
        partial.write_bytes(content)


class AppendFile:
    """A file to which entries are appended; of one that the disk refuses nothing is in the file."""

    def __init__(self, path: Path):
        self._path = path
        with explain_write_errors(path):
            self._file = path.open("ab", buffering=0)

    def append(self, entry: bytes) -> None:
        """Append an entry, which the system has when this returns.

        Raises:
            DiskError: when the disk is full, read-only or failing.
        """
        with explain_write_errors(self._path, needed=len(entry)):
            start = self._file.seek(0, os.SEEK_END)
            rest = memoryview(entry)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(start)
                raise

    def close(self) -> None:
        self._file.close()
