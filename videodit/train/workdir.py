"""Whose a run's directory is: it holds one run, and goes on with that one only."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from videodit.parallel.distributed import on_first
from videodit.provenance import provenance
from videodit.train.config import DiTRun, Run
from videodit.train.config_io import Held, from_json, to_json
from videodit.train.schema import to_tree

# What may change when a run goes on: how long and how it is run, not what it is.
FREE = (
    "steps",
    "log_every",
    "eval_every",
    "save_every",
    "sample_every",
    "keep",
    "mesh",
    "data.num_threads",
    "data.prefetch",
    "data.eval_clips",
)


def claim(workdir: Path, run: Run) -> None:
    """Makes the directory this run's own, or finds that it is; the first process does, for all.

    Raises:
        ValueError: when it holds another run, naming the keys that differ; nothing has been written then.
    """
    on_first(lambda: _claim(workdir, run))


def _claim(workdir: Path, run: Run) -> None:
    path = workdir / "config.json"
    if path.exists() and (found := list(differences(read_run(workdir), run))):
        raise ValueError(f"{workdir} holds another run: {'; '.join(found)}; take its configuration or another workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    describe(workdir, run)


def describe(workdir: Path, held: Held, **facts: Any) -> None:
    """Writes what a directory holds, and where it comes from beside `facts`."""
    _write(workdir / "config.json", to_json(held))
    facts = provenance(to_json(held), command=sys.argv, devices=[str(device) for device in jax.devices()], **facts)
    _write(workdir / "provenance.json", json.dumps(facts, indent=2) + "\n")


def read_run(workdir: Path) -> Held:
    """The run that a directory holds.

    Raises:
        ValueError: when it holds none.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run's directory: it has no config.json")
    return from_json(path.read_text(encoding="utf-8"))


PATHS = ("tokenizer", "vae", "text_encoder", "image_encoder", "expert")


def placed(run: DiTRun, workdir: Path) -> DiTRun:
    """The run with what its paths mean in its directory: what lies there if anything does, or the path itself."""
    given = {name: getattr(run, name) for name in PATHS}
    found = {name: str(workdir / path) for name, path in given.items() if path and (workdir / path).exists()}
    return replace(run, **found)


def differences(held: Run, given: Run) -> Iterator[str]:
    """Words every key in which two runs differ, but for those that may change when a run goes on."""
    there, here = dict(_leaves(to_tree(held))), dict(_leaves(to_tree(given)))
    for key in sorted(there.keys() | here.keys()):
        free = any(key == name or key.startswith(f"{name}.") for name in FREE)
        if not free and there.get(key) != here.get(key):
            yield f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
