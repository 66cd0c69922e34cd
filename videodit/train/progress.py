"""The progress of a run: a live bar on a terminal, a plain line every few seconds elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from videodit_data.boundary.terminal import SafeConsole

from videodit.parallel.distributed import is_main_process

LIVE_SECONDS, PLAIN_SECONDS = 0.5, 5.0


class TerminalProgress:
    """Shows how far a run is and how fast it goes; a context manager.

    Args:
        label: what the terminal calls the run.
        start: the step that the run starts or resumes from.
        steps: the step that it ends at.
        console: where to write; standard error if None. Only the first process of several writes.
    """

    def __init__(self, label: str, start: int, steps: int, console: Console | None = None):
        self._console = (console or SafeConsole(stderr=True)) if is_main_process() else SafeConsole(quiet=True)
        self._label, self._steps, self._clips = label, steps, 0
        self._live = self._console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=self._console, refresh_per_second=2, disable=not self._live
        )
        self._task = self._bar.add_task(label, total=steps, completed=start, note="compiling")
        self._first: tuple[float, int] | None = None  # when and at which step the first update came
        self._shown = float("-inf")  # when an update was shown last

    def __enter__(self) -> "TerminalProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        """Write a line; a live bar stays below it."""
        self._console.print(f"{self._label}: {text}", highlight=False, markup=False, soft_wrap=True)

    def update(self, step: int, loss: float, clips: int) -> None:
        """Count a step on so many clips as complete.

        It is shown if the last update was shown long enough ago, or the run is at its end.
        """
        now = time.monotonic()
        self._clips += clips
        if self._first is None:
            self._first = now, step
        due = LIVE_SECONDS if self._live else PLAIN_SECONDS
        if now - self._shown < due and step < self._steps:
            return
        rate = self._clips / (now - self._shown)
        self._shown, self._clips = now, 0
        note = f"loss {loss:.4f}" + (f"  {rate:.3g} clips/s" if rate else "")
        if self._live:
            self._bar.update(self._task, completed=step, note=note)
        else:
            self.message(f"step {step}/{self._steps}  {note}{self._eta(now, step)}")

    def _eta(self, now: float, step: int) -> str:
        """Return the time left at the speed so far, evaluations and saves included."""
        if self._first is None or step == self._first[1] or step == self._steps:
            return ""
        remaining = round((self._steps - step) * (now - self._first[0]) / (step - self._first[1]))
        hours, minutes, seconds = remaining // 3600, remaining // 60 % 60, remaining % 60
        return f"  {hours}:{minutes:02}:{seconds:02} left" if hours else f"  {minutes}:{seconds:02} left"
