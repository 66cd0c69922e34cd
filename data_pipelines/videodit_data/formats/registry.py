"""The registry of data formats: `NAME:REST` is opened by what is registered under NAME, any other path as a directory.

A new format is one file: a function that returns a `Dataset`, and a call of `register_format`. A module of this package
that has the format's name is imported when a path names it; code elsewhere registers when it is imported.
"""

import os
import re
from collections.abc import Callable

from videodit_data.function_registry import FunctionRegistry
from videodit_data.storage.dataset import Dataset, open_directory

OpenFn = Callable[[str], Dataset]  # takes the path with its prefix; ValueError for users

_OPENERS: FunctionRegistry[OpenFn] = FunctionRegistry("data format", __package__)


def register_format(name: str, open_fn: OpenFn) -> None:
    """Have `open_dataset` call `open_fn(path)` for paths that start with `NAME:`.

    The same function defined once more replaces what it was (`FunctionRegistry.register`).

    Raises:
        ValueError: for a name that is not a lower-case identifier, or that another function has.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"A data format's name is lower-case letters, digits and underscores, not {name!r}.")
    _OPENERS.register(name, open_fn)


def format_name(path: str | os.PathLike[str]) -> str | None:
    """Return the NAME of a path `NAME:REST`; None for a directory, local or on another file system."""
    match = re.match(r"([a-z][a-z0-9_]*):(?!//)", os.fspath(path))
    return match[1] if match and not os.path.exists(path) else None


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open the data set in a directory, or one of a registered format, such as `tfds:NAME_OR_DIRECTORY/SPLIT?fps=25`.

    Raises:
        ValueError: where there is none that can be read, and for a format that is not registered.
    """
    name = format_name(path)
    if name is None:
        return open_directory(path)
    open_fn = _OPENERS.find(name)
    if open_fn is None:
        raise ValueError(f"{os.fspath(path)} is not a directory, and {name!r} is not a registered data format.")
    return open_fn(os.fspath(path))
