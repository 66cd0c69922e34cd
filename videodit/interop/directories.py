"""Output directories that appear only when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRANSFORMERS = ("transformer", "transformer_2")


def check_new(path: Path) -> None:
    """Raise ValueError if `path` exists and is not an empty directory."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists: --to must be a new directory")


@contextmanager
def create_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that is renamed to `path` on success, and removed on failure.

    Raises:
        ValueError: if `path` exists and is not an empty directory.
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
