"""Documents of wrong types: seeded changes of valid ones, and laws of whoever reads them."""

import dataclasses
import json
import math
import random
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack
import pytest

DEEP: list = []
for _ in range(150):
    DEEP = [DEEP]
HARMFUL = (
    "http://127.0.0.1:9/clip.mp4",
    "/etc/passwd",
    "file:///etc/passwd",
    "concat:/etc/passwd",
    "../up",
    "\x1b[31m",
)
ODD = (
    *(None, True, False, 0, -1, 5, 1.5, -0.0, 1e308, math.nan, math.inf, -math.inf, 2**31, 2**53, 2**63),
    *("", "x", "7", "a\0b", "\ud800", "long " * 1000, *HARMFUL),
    *([], {}, [None], [1, 2, 3], ["a"], {"a": 1}, {"": None}, [[1, 2, 3], "a"], DEEP),
)
DEFAULTS = (None, [], {}, "", 1)


class Pairs(dict):
    """An object with one key more, which it has already."""

    def __init__(self, values: Mapping[str, Any], key: str, again: Any):
        super().__init__(values)
        self.twice = (key, again)


def paths(value: Any, above: tuple = ()) -> Iterator[tuple]:
    """Yield the keys of every value below this one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*above, key)
        yield from paths(item, (*above, key))


def mutate(document: Any, rng: random.Random, odd: tuple = ODD) -> tuple[tuple, Any]:
    """Return a changed copy of a document of objects and lists, and the keys of what was changed."""
    path = rng.choice(list(paths(document)))
    how = rng.choice(["replace"] * 5 + ["delete", "rename", "twice", "wrap", "more"])
    further = rng.choice(["more", "", "a\x07b", "__class__"])

    def change(value: Any, keys: tuple) -> Any:
        if len(keys) > 1:
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[keys[0]] = change(value[keys[0]], keys[1:])
            return copy
        (key,) = keys
        if isinstance(value, list):
            items = {
                "delete": [],
                "twice": [value[key]] * 2,
                "wrap": [[value[key]]],
                "more": [value[key], rng.choice(odd)],
            }
            return value[:key] + items.get(how, [rng.choice(odd)]) + value[key + 1 :]
        rest = {name: item for name, item in value.items() if name != key}
        if how == "delete":
            return rest
        if how == "rename":
            return rest | {f"{key}_": value[key]}
        if how == "twice":
            return Pairs(value, key, rng.choice([value[key], *odd]))
        if how == "more":
            return value | {further: rng.choice(odd)}
        return value | {key: {"in": value[key]} if how == "wrap" else rng.choice(odd)}

    changed = change(document, path)
    is_key = how == "more" and isinstance(path[-1], str)
    return (*path[:-1], json.dumps(further)[1:-1]) if is_key else path, changed


def to_json(value: Any) -> str:
    """Return JSON in ASCII, with keys that stand twice."""
    if isinstance(value, dict):
        pairs = [*value.items(), *([value.twice] if isinstance(value, Pairs) else [])]
        return "{" + ", ".join(f"{json.dumps(key)}: {to_json(item)}" for key, item in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_json, value)) + "]"
    return json.dumps(value)


def to_msgpack(value: Any) -> bytes:
    """Return msgpack, with keys that stand twice."""
    packer = msgpack.Packer(unicode_errors="surrogatepass", autoreset=False)

    def pack(value: Any) -> None:
        if isinstance(value, dict):
            pairs = [*value.items(), *([value.twice] if isinstance(value, Pairs) else [])]
            packer.pack_map_header(len(pairs))
            for item in (each for pair in pairs for each in pair):
                pack(item)
        elif isinstance(value, list):
            packer.pack_array_header(len(value))
            for item in value:
                pack(item)
        else:
            packer.pack(value)

    pack(value)
    return packer.bytes()


def has_twice(value: Any) -> bool:
    """Return whether a key stands twice anywhere in a document."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Pairs) or any(map(has_twice, inner))


def agree(document: Any, read: Any) -> bool:
    """Return whether what was read holds all of the document, in its types; what it holds besides is a default."""
    if isinstance(document, Pairs):
        document = {**document, document.twice[0]: document.twice[1]}
    if isinstance(document, dict):
        if not isinstance(read, dict) or not document.keys() <= read.keys():
            return False
        missing = all(any(value == each for each in DEFAULTS) for key, value in read.items() if key not in document)
        return missing and all(agree(value, read[key]) for key, value in document.items())
    if isinstance(document, list):
        same_length = isinstance(read, list | tuple) and len(document) == len(read)
        return same_length and all(map(agree, document, read))
    if isinstance(document, bool) or isinstance(read, bool):
        return document is read
    if isinstance(document, float) and math.isnan(document):
        return isinstance(read, float) and math.isnan(read)
    return document == read


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type, all of its items and fields included."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (object, Any):
        return True
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, each) for each in inner)
    if origin is tuple:
        of_each = inner[:1] * len(value) if inner[1:] == (...,) and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(of_each) and all(map(fits, value, of_each))
    if origin is not None and len(inner) == 1:
        return isinstance(value, origin)
    if origin is not None:
        keys, values = inner
        return isinstance(value, dict) and all(fits(k, keys) and fits(v, values) for k, v in value.items())
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return type(value) is hint and all(
            fits(getattr(value, f.name), hints[f.name]) for f in dataclasses.fields(hint)
        )
    return type(value) is hint or (hint is float and type(value) is int)


def check(
    document: Any,
    read: Callable[[Any], Any],
    dump: Callable[[Any], Any],
    name: str,
    *,
    changes: int,
    seed: str,
    is_refused: Callable[[Any], bool] = has_twice,
) -> tuple[int, int]:
    """Check that changed documents are read as what they say, in the declared types, or refused in one sentence.

    read: takes the document, and returns a typed object. dump: the object's document. name: of the file, which errors
    have. is_refused: whether a changed document must be. Returns how many were read, and how many refused.
    """
    rng, counts = random.Random(seed), [0, 0]
    typed = read(document)
    assert agree(document, dump(typed)) and fits(typed, type(typed))
    for _ in range(changes):
        path, changed = mutate(document, rng)
        try:
            typed = read(changed)
        except ValueError as error:
            counts[1] += 1
            message = str(error)
            assert name in message and message.isascii() and message.isprintable() and len(message) < 1000, message
            assert not re.search(r"\b(None|True|False|nan|-?inf)\b", message), message  # Python's words
            named = [key for key in path if isinstance(key, str)]
            assert not named or any(key.split("_")[0] in message for key in (*named, "key", "counts.", "UTF-8")), (
                path,
                message,
            )
            continue
        counts[0] += 1
        assert not is_refused(changed) and agree(changed, dump(typed)), (path, changed, typed)
        assert fits(typed, type(typed)), (path, typed)
    return counts[0], counts[1]


@pytest.fixture
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when a video is opened, or a connection."""

    def fail(*arguments: object, **named: object) -> None:
        pytest.fail(f"opened: {arguments}")

    for opener in ("av.open", "socket.socket.connect", "socket.getaddrinfo", "socket.create_connection"):
        monkeypatch.setattr(opener, fail)
