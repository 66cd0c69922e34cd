"""The files that a run writes about itself: `metrics.jsonl`, TensorBoard events and pictures."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.proto.summary_pb2 import Summary

from videodit.checkpoint.atomic_write import AppendFile, replace_atomically
from videodit.checkpoint.metrics_file import METRICS_FILE, drop_after
from videodit.train.event_file import EventFile


class NoLog:
    """The log of the other processes of a run, which writes nothing."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def picture(self, step: int, image: Image.Image) -> None: ...
    def close(self) -> None: ...


class MetricsLog:
    """Writes one run's numbers and pictures below its workdir.

    `metrics.jsonl` has one object a line: `step` and numbers by name. A run that resumes drops what was written after
    the step that it resumes from, so that the file reads as one straight run. A disk that refuses the numbers or a
    picture ends the run; one that refuses TensorBoard's events alone ends these, with a warning.

    Args:
        workdir: the run's directory.
        start: the step that the run starts or resumes from.

    Raises:
        DiskError: as `write` and `picture`, when the disk is full, read-only or failing.
    """

    def __init__(self, workdir: Path, start: int):
        self._workdir, path = workdir, workdir / METRICS_FILE
        drop_after(path, start)
        self._lines = AppendFile(path)
        self._events: EventFile | None = None
        try:
            self._events = EventFile(workdir / "tensorboard", start + 1)
        except OSError as error:
            self._warn(error)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of a step; they are in the file when this returns."""
        self._lines.append((json.dumps({"step": step, **values}) + "\n").encode())
        scalars = [summary.scalar(name if "/" in name else f"train/{name}", value) for name, value in values.items()]
        self._show(step, *scalars)

    def picture(self, step: int, image: Image.Image) -> Path:
        """Save a picture as `samples/STEP.png` and in TensorBoard; return its path."""
        path = self._workdir / "samples" / f"{step:08d}.png"
        with replace_atomically(path, workdir=self._workdir) as partial:
            path.parent.mkdir(exist_ok=True)
            image.save(partial, format="PNG")
        self._show(step, summary.image("samples", np.asarray(image), dataformats="HWC"))
        return path

    def close(self) -> None:
        self._lines.close()
        if self._events is not None:
            self._events.close()

    def _show(self, step: int, *summaries: Summary) -> None:
        """Write summaries as TensorBoard's events, until the disk refuses one."""
        if self._events is None:
            return
        try:
            for each in summaries:
                self._events.add(step, each)
        except OSError as error:
            self._events.close()
            self._events = None
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        logging.getLogger(__name__).warning("training goes on without TensorBoard's events: %s", error)
