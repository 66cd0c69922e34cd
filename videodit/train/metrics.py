"""The files that a run writes about itself: `metrics.jsonl`, TensorBoard events and pictures."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter


class NoLog:
    """What the other processes of a run have in place of a `MetricsLog`."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def picture(self, step: int, image: Image.Image) -> None: ...
    def close(self) -> None: ...


class MetricsLog:
    """Writes one run's numbers and pictures below its workdir.

    `metrics.jsonl` has one object a line: `step` and numbers by name. A run that resumes drops what was written after
    the step that it resumes from, so that the file reads as one straight run.

    Args:
        workdir: the run's directory.
        start: the step that the run starts or resumes from.
    """

    def __init__(self, workdir: Path, start: int):
        self._pictures = workdir / "samples"
        path = workdir / "metrics.jsonl"
        drop_after(path, start)
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends the numbers of a step; they are in the file when this returns."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def picture(self, step: int, image: Image.Image) -> Path:
        """Saves a picture as `samples/STEP.png` and in TensorBoard; returns its path."""
        self._pictures.mkdir(exist_ok=True)
        path = self._pictures / f"{step:08d}.png"
        image.save(path)
        self._board.add_image("samples", np.asarray(image), step, dataformats="HWC")
        return path

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def drop_after(path: Path, step: int) -> None:
    """Removes the entries of later steps, and a last line that was cut off while being written."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    partial = path.with_suffix(".part")
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The entries of a run's `metrics.jsonl`, in order."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _step_of(line: str) -> int | float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
