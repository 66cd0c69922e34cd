"""The directory of a run: it holds one run, and only that run may resume in it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from videodit.checkpoint.atomic_write import write_text_atomically
from videodit.checkpoint.metrics_file import read_metrics
from videodit.config.io import WorkdirConfig, from_json, to_json
from videodit.config.json_file import read_document
from videodit.config.run import DiTRun, Run
from videodit.config.schema import to_tree
from videodit.parallel.distributed import on_main_process
from videodit.provenance import command_line, provenance

CONFIG_FILE, PROVENANCE_FILE = "config.json", "provenance.json"

# What may change when a run resumes: how long and how it is run, not what it is.
FREE_KEYS = (
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
PATH_KEYS = ("tokenizer", "vae", "text_encoder", "image_encoder", "low_noise_expert")


def prepare_workdir(workdir: Path, run: Run) -> None:
    """Check that a workdir belongs to this run, or is new, and describe the run in it; the main process does.

    Raises:
        ValueError: when it holds another run, naming the keys that differ, or damaged metrics; nothing has been
            written then.
    """

    def prepare() -> None:
        if (workdir / CONFIG_FILE).exists() and (changes := list(differences(read_config(workdir), run))):
            raise ValueError(
                f"{workdir} holds another run: {'; '.join(changes)}; take its configuration or another workdir"
            )
        read_metrics(workdir)  # a run that resumes keeps what it can read
        workdir.mkdir(parents=True, exist_ok=True)
        describe(workdir, run)

    on_main_process(prepare)


def describe(workdir: Path, config: WorkdirConfig, **facts: Any) -> None:
    """Write what a directory holds, and where it comes from beside `facts`.

    A configuration that already says the same stays as it is: what was made with it names it by its hash.
    """
    path = workdir / CONFIG_FILE
    if not path.exists() or read_config(workdir) != config:
        write_text_atomically(path, to_json(config))
    devices = [str(device) for device in jax.devices()]
    facts = provenance(to_json(config), command=command_line(), devices=devices, **facts)
    write_text_atomically(workdir / PROVENANCE_FILE, json.dumps(facts, indent=2) + "\n")


def read_config(workdir: Path) -> WorkdirConfig:
    """Read the configuration of a directory, of this version or an earlier one.

    Raises:
        ValueError: when it has none, or one that does not describe a run, naming the key.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run's directory: it has no {CONFIG_FILE}")
    return read_document(path, from_json)


def resolve_paths(run: DiTRun, workdir: Path) -> DiTRun:
    """Return the run with its paths resolved: what exists in the directory under a path, or else the path itself."""
    paths = {name: getattr(run, name) for name in PATH_KEYS}
    inside = {name: str(workdir / path) for name, path in paths.items() if path and (workdir / path).exists()}
    return replace(run, **inside)


def differences(present: WorkdirConfig, requested: Run) -> Iterator[str]:
    """Yield a phrase for every key in which two runs differ, but for those that may change when a run resumes."""
    present_values, values = dict(_leaves(to_tree(present))), dict(_leaves(to_tree(requested)))
    for key in sorted(present_values.keys() | values.keys()):
        free = any(key == name or key.startswith(f"{name}.") for name in FREE_KEYS)
        if not free and present_values.get(key) != values.get(key):
            yield f"{key} is {present_values.get(key)!r} there and {values.get(key)!r} here"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
