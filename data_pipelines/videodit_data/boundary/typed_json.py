"""Strict parsing of JSON into typed values: anything else is one sentence with the key, its value and what is right.

Types are dataclasses, whose fields may have the bounds below. A key that stands twice, one that the type lacks, a
number that is not finite, half a surrogate pair and nesting without end are refused. `videodit.config.json_file` does
the same for the files of runs.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

_LIKE: dict[str, str] = {}  # words for the patterns of texts


def like(pattern: str, words: str) -> Meta:
    """Return the bound of a text that a regular expression describes, and `words` in errors."""
    _LIKE[pattern] = words
    return Meta(pattern=pattern)


Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # of frames, pixels or arrays
Rate = Annotated[float, Meta(ge=1e-10, le=1e12)] | Annotated[int, Meta(ge=1, le=10**12)]  # per second
Seconds = Annotated[float, Meta(ge=-1e18, le=1e18)] | Annotated[int, Meta(ge=-(10**18), le=10**18)]
Sha256 = Annotated[str, like(r"^[0-9a-f]{64}\Z", "the 64 digits of a sha256")]
Text = Annotated[str, like(r"^[^\0]*\Z", "a text without U+0000")]

_DEEPEST = 100  # objects and lists inside each other
_LONGEST, _WIDEST = 40, 200  # characters of a value and of its keys that an error shows
_ATOMS = {int, bool, type(None)}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a JSON object",
    "null": "null",
    "bytes": "bytes",
}
_NAMES = {int: "int", float: "float", str: "str", bool: "bool", list: "array", tuple: "array", dict: "object"}
_NAMES |= {type(None): "null", bytes: "bytes"}


def parse_json(data: bytes | str, kind: Any, name: str, *, nul: bool = False) -> Any:
    """Parse JSON as a value of type `kind`; `name` is its file, and perhaps its line, for errors.

    `nul` allows the character U+0000 in texts. ValueError when it is anything else.
    """
    value = load_json(data, name)
    try:
        _check(value, 0, nul)
    except _Fault as fault:
        path = "".join(map(_step, fault.keys)).lstrip(".") or "it"
        raise ValueError(f"{name}: {path if len(path) <= _WIDEST else path[:_WIDEST] + '...'} {fault}.") from None
    return convert(value, kind, name)


def load_json(data: bytes | str, name: str) -> Any:
    """Parse JSON of any type, in which each key stands once; `name` begins errors. ValueError when it is none."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode(), object_pairs_hook=each_key_once)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 (byte {error.start}).") from error
    except RecursionError as error:
        raise ValueError(f"{name}: not JSON (nested too deeply).") from error
    except ValueError as error:
        raise ValueError(f"{name}: not JSON ({error}).") from error


def convert(value: Any, kind: Any, name: str, *, more: bool = False) -> Any:
    """Return plain values, as JSON gives them, as a value of type `kind`. ValueError names the key that does not fit.

    `more` allows keys that the type lacks, and passes over them.
    """
    try:
        typed = msgspec.convert(value, kind)
        if not more:
            _check_keys(value, typed, "")
    except ValueError as error:
        raise ValueError(f"{name}: {explain(error, value)}.") from error
    return typed


def shorten(value: object) -> str:
    """Return a value for an error: short, on one line, in ASCII without control characters."""
    if isinstance(value, Mapping):
        return f"a JSON object with {len(value)} keys"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        text = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
        return json.dumps(text).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**21:
        return f"a number of {value.bit_length()} bits"
    return json.dumps(value, default=lambda other: type(other).__name__)


def show_key(key: str) -> str:
    """Return a key for an error: as it is if it is a plain word, shortened otherwise."""
    return key if re.fullmatch(r"[A-Za-z_][\w-]{0,40}|\.\.\.", key, re.ASCII) else shorten(key)


def explain(error: Exception, value: Any) -> str:
    """Return msgspec's error about a value in words, with the key and what it holds, without a full stop."""
    message, _, at = str(error).partition(" - at `")
    tokens = [key or index for key, index in re.findall(r"\.(\w+)|\[([\d.]+)\]", at)]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", message):
        return f"{_path(tokens) or 'it'} lacks the key '{missing[1]}'"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        return f"{_path(tokens) or 'it'} has the key {shorten(unknown[1])}, which is not known"
    expected, _, got = message.removeprefix("Expected ").partition(", got ")
    if expected == message and message != "Number out of range":  # of a __post_init__
        return f"{_path(tokens)}: {message}".removeprefix(": ").removesuffix(".")
    expected = re.sub(
        r"`([\w |]+)`", lambda names: " or ".join(_WORDS.get(n, n) for n in names[1].split(" | ")), expected
    )
    expected = expected.replace("Number out of range", "a number within range")
    for pattern, words in _LIKE.items():
        expected = expected.replace(f"a text matching regex {pattern!r}", words)
    found = _locate(value, tokens, got.strip("`")) if got or "..." not in tokens else None
    if found is None:
        return f"{_path(tokens) or 'it'} does not fit; expected {expected}"
    return f"{_path(found[0]) or 'it'} is {shorten(found[1])}; expected {expected}"


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of these pairs, for decoders. ValueError names a key that stands twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shorten(twice)} stands twice in one JSON object")
    return values


class _Fault(Exception):
    """A value that is not plain; `keys` lead to it."""

    def __init__(self, message: str):
        super().__init__(message)
        self.keys: list[str | int] = []


def _check(value: Any, depth: int, nul: bool) -> None:
    """Check texts, numbers and depth of plain values. _Fault where they are not as `parse_json` says."""
    if isinstance(value, str):
        if (reason := _text_fault(value, nul)) is not None:
            raise _Fault(reason)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Fault(f"is {shorten(value)}; expected a finite number")
    elif isinstance(value, list | dict):
        if depth >= _DEEPEST:
            raise _Fault(f"is nested more than {_DEEPEST} deep")
        if isinstance(value, dict):
            for key in value:
                if (reason := _text_fault(key, nul)) is not None:
                    raise _Fault(f"has the key {shorten(key)}, which {reason}")
        elif not (kinds := set(map(type, value))) - _ATOMS or (kinds == {float} and all(map(math.isfinite, value))):
            return  # long lists of sizes
        key: str | int
        try:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):  # noqa: B007
                if type(item) not in _ATOMS:
                    _check(item, depth + 1, nul)
        except _Fault as fault:
            fault.keys.insert(0, key)
            raise


def _text_fault(text: str, nul: bool) -> str | None:
    """Return why a text is refused, None if it is not."""
    if not nul and "\0" in text:
        return f"is {shorten(text)}; expected a text without U+0000"
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        return f"is {shorten(text)}; expected a text without half a surrogate pair"
    return None


def _check_keys(value: Any, typed: Any, path: str) -> None:
    """Check that objects have no keys that their dataclasses lack; msgspec passes over them."""
    if dataclasses.is_dataclass(typed) and isinstance(value, dict):
        names = [field.name for field in dataclasses.fields(typed)]
        for key, item in value.items():
            if key not in names:
                at = f"{path.lstrip('.')} has" if path else "it has"
                raise ValueError(f"{at} the key {shorten(key)}; expected only {', '.join(names)}")
            _check_keys(item, getattr(typed, key), f"{path}.{key}")
    elif isinstance(typed, tuple) and typed and dataclasses.is_dataclass(typed[0]):
        for number, (item, each) in enumerate(zip(value, typed, strict=True)):
            _check_keys(item, each, f"{path}[{number}]")


def _locate(value: Any, keys: Sequence[str], got: str) -> tuple[list[str], Any] | None:
    """Return the keys of the value that an error is about, and the value; "..." stands for a key that msgspec hides."""
    if not keys:
        return ([], value) if got in ("", _NAMES.get(type(value), ""), str(_length(value))) else None
    head, rest = keys[0], keys[1:]
    try:
        if head == "...":
            items = list(value.items())
        else:
            items = [(head, value[int(head)] if isinstance(value, list | tuple) else value[head])]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return None
    for key, item in items:
        if (found := _locate(item, rest, got)) is not None:
            return [str(key), *found[0]], found[1]
    return None


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list | tuple | str | bytes) else None


def _path(keys: Sequence[str]) -> str:
    return "".join(_step(int(key) if key.isdigit() else key) for key in keys).lstrip(".")


def _step(key: str | int) -> str:
    word = str(key) if isinstance(key, int) else show_key(key)
    return f".{word}" if word == key else f"[{word}]"
