"""Things registered by name, so that a configuration or a command can choose among them, ours and other people's."""

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def import_attribute(name: str, kind: str) -> Any:
    """Import `MODULE:ATTRIBUTE`; the module may lie in the working directory, as for `python -m`.

    Args:
        kind: what it is, for errors.

    Raises:
        ValueError: when there is no such module or attribute.
    """
    module, _, attribute = name.partition(":")
    if (cwd := os.getcwd()) not in sys.path:
        sys.path.append(cwd)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the latter two for an odd name
        raise ValueError(f"{kind} {name[:80]!r} cannot be imported: {error!s:.200}") from error


def _origin(entry: object) -> tuple[str, str]:
    return getattr(entry, "__module__", ""), getattr(entry, "__qualname__", repr(entry))


class Registry(Generic[T]):
    """Named things of one kind.

    A name is one that was registered, or `MODULE:ATTRIBUTE`, which is imported: so what lies outside of this package
    is found again by every process that reads the same configuration. The module may lie in the working directory, as
    for `python -m`.

    Args:
        kind: what they are, for errors, as "metric".
        package: a package whose modules register more, imported when a name is looked up.
    """

    def __init__(self, kind: str, package: str | None = None):
        self._kind, self._package = kind, package
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers under a name; ValueError when another thing has it.

        The same thing defined once more, by a notebook's cell or a reloaded module, replaces what it was.
        """

        def add(entry: T) -> T:
            if name in self._entries and _origin(self._entries[name]) != _origin(entry):
                raise ValueError(f"there are two of {self._kind} '{name}'")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """Return what has the name; ValueError when nothing has, with the nearest name."""
        if ":" in name:
            return import_attribute(name, self._kind)
        if name not in self.names():
            near = difflib.get_close_matches(name[:80], self._entries, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(self.names())}, or MODULE:ATTRIBUTE"
            raise ValueError(f"there is no {self._kind} {name[:80]!r}: {hint}")
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all names."""
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)
        return sorted(self._entries)
