"""Frozen dataclasses to plain trees and back, strictly: an unknown key or a wrong type is an error that teaches."""

import dataclasses
import difflib
import functools
import math
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

from videodit.config.renames import new_name

T = TypeVar("T")


class _Repr(reprlib.Repr):
    """Python's `repr`, shortened; of None and booleans JSON's spelling where errors are about JSON."""

    def repr_bool(self, value: bool, level: int) -> str:
        return repr(value).lower() if _in_json.get() else repr(value)

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null" if _in_json.get() else repr(value)


_in_json: ContextVar[bool] = ContextVar("in_json", default=False)
_repr = _Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother, _repr.maxlong = 3, 60, 60, 60

_WORDS = {
    int: "an int",
    float: "a float",
    bool: "true or false",
    str: "a string",
    dict: "a JSON object",
}


@contextmanager
def json_spelling() -> Iterator[None]:
    """Spell null, true and false as JSON does in errors that are raised meanwhile."""
    token = _in_json.set(True)
    try:
        yield
    finally:
        _in_json.reset(token)


def to_tree(config: Any) -> dict[str, Any]:
    """Turn a dataclass of scalars, tuples and dataclasses into nested dicts; tuples stay tuples."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_tree(cls: type[T], tree: Any, path: str = "", *, ignore_unknown: bool = False) -> T:
    """Build the dataclass `cls` from nested mappings, checking every key and every type.

    Keys left out take their defaults. An int is taken where a float is wanted, a list where a tuple is wanted (JSON).
    Floats are finite; text is valid Unicode without NUL.

    Args:
        ignore_unknown: skip keys that `cls` lacks, of documents that others define.

    Raises:
        ValueError: naming the key's path, what was given and what would be right (with the nearest key).
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path or cls.__name__} must be a JSON object, not {shorten(tree)}")
    hints = hints_of(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields and not ignore_unknown:
            raise ValueError(unknown_key(_join(path, key), fields))
    values = {}
    for name, field in fields.items():
        if name in tree:
            values[name] = parse_as(hints[name], tree[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"key '{_join(path, name)}' is missing: it needs {describe(hints[name])}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error


def parse_as(hint: Any, value: Any, path: str = "") -> Any:
    """Return a value in the type of an annotation: scalars, tuples, mappings, dataclasses; errors as `from_tree`."""
    if dataclasses.is_dataclass(hint):
        return from_tree(hint, value, path)  # type: ignore[arg-type]
    for option in _options(hint):
        accepted, typed = _accept(option, value, path)
        if accepted:
            return typed
    raise ValueError(f"{path or 'it'} must be {describe(hint)}, not {shorten(value)}{_nearest(hint, value)}")


def shorten(value: Any) -> str:
    """Return the first characters of a value's `repr`, which is free of control characters; see `json_spelling`."""
    text = _repr.repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def printable(name: Any) -> str:
    """Return a name as it is if it is short and printable, or else as `shorten`."""
    return name if isinstance(name, str) and name.isprintable() and len(name) <= 200 else shorten(name)


@functools.cache
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
    hint = f"the keys there are {', '.join(names)}" if names else f"'{group}' is no JSON object"
    return f"unknown key '{path}': {hint}"


def describe(hint: Any) -> str:
    """Return in words what values a type annotation admits."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " * (len(args) > 1) + ", ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"a tuple, each entry {describe(args[0])}"
        return f"a tuple of {len(args)} ({', '.join(describe(a) for a in args)})"
    if origin is Mapping:
        return f"a JSON object, each value {describe(args[1])}"
    if hint is type(None):
        return "null" if _in_json.get() else "None"
    return _WORDS.get(hint) or getattr(hint, "__name__", str(hint))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_tree(value)
    if isinstance(value, tuple):
        return tuple(_plain(v) for v in value)
    return value


def _join(group: str, key: Any) -> str:
    return f"{group}.{printable(key)}" if group else printable(key)


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
        return True, tuple(parse_as(h, v, f"{path}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            return False, None
        return True, {_text(k, path): parse_as(args[1], v, _join(path, k)) for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return True, from_tree(hint, value, path)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return True, _finite(value, path)
    if hint is int and isinstance(value, bool):
        return False, None
    if hint is str and isinstance(value, str):
        return True, _text(value, path)
    return isinstance(value, hint), value


def _finite(value: int | float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{path or 'it'} must be a finite number, not {shorten(value)}")
    return number


def _text(value: str, path: str) -> str:
    """Return text that can be written to any file and be part of any path."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{path or 'it'} must be text in UTF-8 without NUL, not {shorten(value)}")
    return value


def _nearest(hint: Any, value: Any) -> str:
    if typing.get_origin(hint) is not Literal or not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(value, [a for a in typing.get_args(hint) if isinstance(a, str)], n=1)
    return f": did you mean {near[0]!r}?" if near else ""
