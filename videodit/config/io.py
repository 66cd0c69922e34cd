"""Configurations as JSON, as `ml_collections` trees, and loaded from files of `configs/` with overrides."""

import json
from collections.abc import Sequence

from ml_collections import ConfigDict

from videodit.config import files
from videodit.config.files import class_of, to_config_dict
from videodit.config.json_file import parse_object
from videodit.config.renames import migrate
from videodit.config.run import DiTRun, ImportedTextEncoder, ImportedVisionEncoder, Run, VAERun
from videodit.config.schema import from_tree, to_tree

__all__ = ["RUNS", "WorkdirConfig", "from_config_dict", "from_json", "load", "to_config_dict", "to_json"]

WorkdirConfig = Run | ImportedTextEncoder | ImportedVisionEncoder  # what a directory may hold
RUNS: tuple[type[Run], ...] = (VAERun, DiTRun)


def from_config_dict(config: ConfigDict) -> Run:
    """Build the run that a `ConfigDict` describes; ValueError as `files.from_config_dict`."""
    return files.from_config_dict(config, RUNS)


def load(path: str, overrides: Sequence[str] = ()) -> Run:
    """Load the run that `FILE.py` or `FILE.py:VARIANT` describes, with overrides; ValueError as `files.load`."""
    return files.load(path, overrides, among=RUNS)


def to_json(config: WorkdirConfig) -> str:
    """Return the configuration as JSON."""
    return json.dumps(to_tree(config), indent=2) + "\n"


def from_json(text: str | bytes) -> WorkdirConfig:
    """Build the configuration that `to_json` wrote, by this version or an earlier one.

    Raises:
        ValueError: as `parse_object` and `from_tree`.
    """
    tree = migrate(parse_object(text))
    return from_tree(class_of(tree.get("kind"), (*RUNS, ImportedTextEncoder, ImportedVisionEncoder)), tree)
