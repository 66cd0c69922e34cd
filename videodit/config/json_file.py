"""JSON files read strictly: what is damaged, odd or of another shape is an error that names the file and the key.

`videodit_data.boundary.typed_json` does the same for data sets; that package imports nothing of this one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from videodit.config.schema import from_tree, json_spelling, shorten
from videodit.provenance import JSON

T = TypeVar("T")

MAX_BYTES = 2**24
MAX_DEPTH = 32


def read_json(path: Path, cls: type[T], *, ignore_unknown: bool = False) -> T:
    """Read the dataclass `cls` from a JSON file; errors as `read_document`, `parse_json` and `from_tree`."""
    return read_document(path, lambda data: from_tree(cls, parse_json(data), ignore_unknown=ignore_unknown))


def read_document(path: Path, parse: Callable[[bytes], T]) -> T:
    """Read a file of at most `MAX_BYTES` bytes and parse it.

    Raises:
        ValueError: as `parse`, with the file's path before the message.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes, which no such file is")
        with json_spelling():
            return parse(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_json(data: bytes | str) -> JSON:
    """Parse a JSON document, which may hold NaN and infinities.

    Raises:
        ValueError: for what is no UTF-8 or no JSON, has a key twice, or is nested deeper than `MAX_DEPTH`.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        tree = json.loads(text, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from error
    _check_depth(tree)
    return tree


def parse_object(data: bytes | str) -> dict[str, JSON]:
    """Parse a JSON document that is an object; ValueError for any other, and as `parse_json`."""
    tree = parse_json(data)
    if not isinstance(tree, dict):
        with json_spelling():
            raise ValueError(f"it must be a JSON object, not {shorten(tree)}")
    return tree


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group: dict[str, Any] = {}
    for key, value in pairs:
        if key in group:
            raise ValueError(f"the key {shorten(key)} is there twice")
        group[key] = value
    return group


def _check_depth(tree: JSON) -> None:
    level = [tree]
    for _ in range(MAX_DEPTH):
        groups = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        level = [child for group in groups for child in group]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
