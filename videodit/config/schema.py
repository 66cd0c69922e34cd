"""Frozen dataclasses to plain trees and back, strictly: an unknown key or a wrong type is an error that teaches."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from videodit.config.renames import new_name

T = TypeVar("T")

_WORDS = {int: "an int", float: "a float", bool: "true or false", str: "a string", type(None): "None"}


def to_tree(config: Any) -> dict[str, Any]:
    """Turn a dataclass of scalars, tuples and dataclasses into nested dicts; tuples stay tuples."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_tree(cls: type[T], tree: Any, path: str = "") -> T:
    """Build the dataclass `cls` from nested mappings, checking every key and every type.

    Keys left out take their defaults. An int is taken where a float is wanted, a list where a tuple is wanted (JSON).

    Raises:
        ValueError: naming the key's path, what was given and what would be right (with the nearest key).
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path or cls.__name__} must be a group of keys, not {tree!r}")
    hints = hints_of(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            raise ValueError(unknown_key(_join(path, key), fields))
    values = {}
    for name, field in fields.items():
        if name in tree:
            values[name] = _typed(hints[name], tree[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"key '{_join(path, name)}' is missing: it needs {describe(hints[name])}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path or 'config'}: {error}") from error


def hints_of(cls: type) -> dict[str, Any]:
    """Return the annotations of a dataclass by field name."""
    return typing.get_type_hints(cls)


def type_of(hint: Any) -> type:
    """Return the type of the values of an annotation like `str | None`."""
    first = next(option for option in _options(hint) if option is not type(None))
    if typing.get_origin(first) is Literal:
        return type(typing.get_args(first)[0])
    return typing.get_origin(first) or first


def unknown_key(path: str, keys: Iterable[str]) -> str:
    """Return the error for a key path whose last part is not among `keys`: its new name, or the nearest of them."""
    group, _, key = path.rpartition(".")
    names = sorted(keys)
    if (now := new_name(path)) is not None:
        return f"key '{path}' is called '{now}' now"
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if near:
        return f"unknown key '{path}': did you mean '{_join(group, near[0])}'?"
    hint = f"the keys there are {', '.join(names)}" if names else f"'{group}' is no group of keys"
    return f"unknown key '{path}': {hint}"


def describe(hint: Any) -> str:
    """Return in words what values a type annotation admits."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"a tuple, each entry {describe(args[0])}"
        return f"a tuple of {len(args)} ({', '.join(describe(a) for a in args)})"
    return _WORDS.get(hint) or getattr(hint, "__name__", str(hint))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_tree(value)
    if isinstance(value, tuple):
        return tuple(_plain(v) for v in value)
    return value


def _join(group: str, key: str) -> str:
    return f"{group}.{key}" if group else key


def _typed(hint: Any, value: Any, path: str) -> Any:
    """Check one value against its annotation and return it in that type."""
    if dataclasses.is_dataclass(hint):
        return from_tree(hint, value, path)
    for option in _options(hint):
        accepted, typed = _accept(option, value, path)
        if accepted:
            return typed
    raise ValueError(f"{path} must be {describe(hint)}, not {value!r}{_nearest(hint, value)}")


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _accept(hint: Any, value: Any, path: str) -> tuple[bool, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in args, value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False, None
        hints = (args[0],) * len(value) if args[-1] is Ellipsis else args
        if len(hints) != len(value):
            return False, None
        return True, tuple(_typed(h, v, f"{path}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return True, from_tree(hint, value, path)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    if hint is int and isinstance(value, bool):
        return False, None
    return isinstance(value, hint), value


def _nearest(hint: Any, value: Any) -> str:
    if typing.get_origin(hint) is not Literal or not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(value, [a for a in typing.get_args(hint) if isinstance(a, str)], n=1)
    return f": did you mean {near[0]!r}?" if near else ""
