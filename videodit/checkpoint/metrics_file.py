"""The numbers that a run has logged: `metrics.jsonl` in its directory, one object a line."""

import json
from pathlib import Path
from typing import Any

from videodit.checkpoint.atomic_write import write_text_atomically

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's `metrics.jsonl`, in order; none where there is no file."""
    path = workdir / METRICS_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def drop_after(path: Path, step: int) -> None:
    """Remove the entries of later steps, and a last line that was cut off while being written."""
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    write_text_atomically(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> int | float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
