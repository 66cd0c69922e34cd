"""A frozen tree of dataclasses as a file of `configs/` with overrides, and as `ml_collections` shows it.

A configuration file has `get_config(variant)`, which returns `to_config_dict(...)` of its tree; `--config=FILE:VARIANT`
passes the variant, `--config.model.depth=12` overrides one key. Each class of trees has its own `kind`.
"""

import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import placeholder

from videodit.config.schema import describe, from_tree, hints_of, shorten, to_tree, type_of, unknown_key
from videodit.config.shipped import FOLDER, find_shipped, shipped_folder

Classes = tuple[type, ...]  # of trees that are admitted


def to_config_dict(tree: Any) -> ConfigDict:
    """Return the tree as a locked `ConfigDict`; a key that is None can still be set, to the type that it admits."""
    return ConfigDict(_settable(type(tree), to_tree(tree))).lock()


def from_config_dict(config: ConfigDict, among: Classes) -> Any:
    """Build the tree, of one of the classes `among`, that a `ConfigDict` describes.

    Raises:
        ValueError: for an unknown key or a wrong type, naming the key, what was given, what would be right.
    """
    tree = config.to_dict()
    return from_tree(class_of(tree.get("kind"), among), tree)


def load(path: str, overrides: Sequence[str] = (), *, among: Classes) -> Any:
    """Load the tree, of one of the classes `among`, that a configuration file describes.

    Args:
        path: `FILE.py` or `FILE.py:VARIANT`; `configs/NAME.py`, where there is no such file, is the one that comes with
            the package.
        overrides: command-line flags, `--config.KEY=VALUE` (or `--config.KEY`, `VALUE`); tuples as `(1,2,2)`.

    Raises:
        ValueError: when the file is missing or fails, knows no such variant, or a flag does not fit.
    """
    file, _, variant = path.partition(":")
    get_config = _get_config(Path(file))
    try:
        config = get_config(variant) if variant else get_config()
    except Exception as error:
        raise ValueError(f"{path} cannot be configured: {_words(error)}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"get_config of {file} must return a ConfigDict (see to_config_dict), not {config!r:.80}")
    return from_config_dict(_override(config, overrides, among), among)


def class_of(kind: Any, among: Classes) -> type:
    """Return the class of that `kind`; ValueError names those there are."""
    classes = {cls.kind: cls for cls in among}
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"kind must be {' or '.join(map(repr, classes))}, not {shorten(kind)}")
    return classes[kind]


def _settable(cls: type, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree with every None replaced by a placeholder of the type that may be put there."""
    hints = hints_of(cls)

    def settable(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _settable(type_of(hints[name]), value)
        return placeholder(type_of(hints[name])) if value is None else value

    return {name: settable(name, value) for name, value in tree.items()}


def _find_file(file: Path) -> Path:
    """Return the file as it is named, or the one of that name that comes with the package."""
    if file.is_file():
        return file
    shipped = find_shipped(file)
    if shipped is not None:
        return shipped
    candidates = [*file.parent.glob("*.py")]
    if file.parts[:1] == (FOLDER,):
        candidates += (shipped_folder() / file.relative_to(FOLDER)).parent.glob("*.py")
    near = difflib.get_close_matches(file.name, [candidate.name for candidate in candidates], n=1)
    raise ValueError(f"there is no configuration file {file}" + (f": did you mean {near[0]}?" if near else ""))


def _get_config(file: Path) -> Callable[..., Any]:
    file = _find_file(file)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if (cwd := os.getcwd()) not in sys.path:
        sys.path.append(cwd)  # as for `python -m`, for what the file imports
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{file} does not run: {_words(error)}") from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"{file} has no function get_config(variant): a configuration file must define it")
    return module.get_config


def _override(config: ConfigDict, overrides: Sequence[str], among: Classes) -> ConfigDict:
    """Apply command-line flags to a configuration."""
    for flag in overrides:
        if match := re.match(r"--?(?:no)?config\.([^=]+)", flag):
            _check_key(config, match[1])
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(overrides))
        surplus = values(["videodit", *overrides])[1:]
    except (flags.Error, ValueError, TypeError, SyntaxError) as error:
        raise ValueError(_explain(config, error, among)) from error
    if surplus:
        raise ValueError(f"'{surplus[0]}' is not an override: write --config.KEY=VALUE")
    return config


def _check_key(config: ConfigDict, path: str) -> None:
    node: Any = config
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, ConfigDict) or part not in node:
            keys = node.keys() if isinstance(node, ConfigDict) else ()
            raise ValueError(unknown_key(".".join(parts[: depth + 1]), keys))
        node = node[part]
    if isinstance(node, ConfigDict):
        raise ValueError(
            f"--config.{path} is a JSON object: set one of its keys, like --config.{path}.{next(iter(node))}"
        )


def _explain(config: ConfigDict, error: Exception, among: Classes) -> str:
    """Return the message for a failure of absl's flags, worded as our own errors are."""
    match = re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL)
    if match is None:
        return f"the overrides do not parse: {_words(error)}"
    hint: Any = class_of(config.kind, among)
    for part in match[1].split("."):
        hint = hints_of(hint)[part]
    return f"{match[1]} must be {describe(hint)}, not '{match[2]}'"


def _words(error: Exception) -> str:
    """Return an error's message on one line, with its type where the message alone says little."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
