"""A registry of functions by name, which imports a package's module of that name on the first lookup."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Generic, TypeVar

Fn = TypeVar("Fn", bound=Callable)


class FunctionRegistry(Generic[Fn]):
    """Functions of one kind by name.

    Args:
        kind: what they are, for errors.
        package: a package; a name that has no function imports the package's module of that name.
    """

    def __init__(self, kind: str, package: str):
        self._kind, self._package = kind, package
        self._functions: dict[str, Fn] = {}

    def register(self, name: str, fn: Fn) -> None:
        """Register a function under a name.

        The same function (of the same module and qualified name) defined once more, by a notebook's cell or a reloaded
        module, replaces what it was.

        Raises:
            ValueError: when another function has the name.
        """
        if name in self._functions and _origin(self._functions[name]) != _origin(fn):
            raise ValueError(f"The {self._kind} {name!r} is registered already.")
        self._functions[name] = fn

    def find(self, name: str) -> Fn | None:
        """Return the function of a name; None when there is none."""
        module = f"{self._package}.{name}"
        if name not in self._functions and name.isidentifier() and importlib.util.find_spec(module):
            importlib.import_module(module)
        return self._functions.get(name)

    def names(self) -> list[str]:
        """Return the names registered so far."""
        return sorted(self._functions)


def _origin(fn: Callable) -> tuple[str, str]:
    return getattr(fn, "__module__", ""), getattr(fn, "__qualname__", repr(fn))
