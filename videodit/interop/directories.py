"""New directories, complete or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRANSFORMERS = ("transformer", "transformer_2")


def check_new(path: Path) -> None:
    """Raise ValueError when there is something at `path` other than an empty directory."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists: --to is a directory to make")


@contextmanager
def create_directory(path: Path) -> Iterator[Path]:
    """Yield a directory to fill, which gets its name when it is complete, and is removed if it never is.

    Raises:
        ValueError: when `path` exists and is not an empty directory.
    """
    check_new(path)
    partial = path.with_name(path.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rmdir()
    os.replace(partial, path)
