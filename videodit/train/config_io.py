"""A run's configuration as `ml_collections` shows it, as JSON, and as a file of `configs/` with overrides."""

import json
from collections.abc import Sequence

from ml_collections import ConfigDict

from videodit.train import config_file
from videodit.train.config import DiTRun, Run, TextModel, VAERun, VisionModel
from videodit.train.config_file import class_of, to_config_dict
from videodit.train.schema import from_tree, to_tree

__all__ = ["RUNS", "Held", "from_config_dict", "from_json", "load", "to_config_dict", "to_json"]

Held = Run | TextModel | VisionModel  # what a directory may hold
RUNS: tuple[type[Run], ...] = (VAERun, DiTRun)


def from_config_dict(config: ConfigDict) -> Run:
    """The run that a `ConfigDict` describes. ValueError as in `config_file.from_config_dict`."""
    return config_file.from_config_dict(config, RUNS)


def load(path: str, overrides: Sequence[str] = ()) -> Run:
    """The run that `FILE.py` or `FILE.py:VARIANT` describes, with overrides; ValueError as in `config_file.load`."""
    return config_file.load(path, overrides, among=RUNS)


def to_json(run: Held) -> str:
    """The run as JSON."""
    return json.dumps(to_tree(run), indent=2) + "\n"


def from_json(text: str) -> Held:
    """What `to_json` wrote; `ValueError` as in `from_config_dict`."""
    tree = json.loads(text)
    return from_tree(class_of(tree.get("kind"), (*RUNS, TextModel, VisionModel)), tree)
