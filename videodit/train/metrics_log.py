"""The files that a run writes about itself: `metrics.jsonl`, TensorBoard events and pictures."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from videodit.checkpoint.metrics_file import METRICS_FILE, drop_after


class NoLog:
    """The log of the other processes of a run, which writes nothing."""

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
        path = workdir / METRICS_FILE
        drop_after(path, start)
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of a step; they are in the file when this returns."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def picture(self, step: int, image: Image.Image) -> Path:
        """Save a picture as `samples/STEP.png` and in TensorBoard; return its path."""
        self._pictures.mkdir(exist_ok=True)
        path = self._pictures / f"{step:08d}.png"
        image.save(path)
        self._board.add_image("samples", np.asarray(image), step, dataformats="HWC")
        return path

    def close(self) -> None:
        self._lines.close()
        self._board.close()
