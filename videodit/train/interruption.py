"""SIGTERM and Ctrl-C as a request to stop: at the next step, or at one that all processes agree on."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

from videodit.parallel.first_signal import FirstSignal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Records the first SIGTERM or SIGINT in `name` once it listens; a second one does what it did before.

    A repeat of the first one (`first_signal`) is not a second one.

    It is itself the handler of these signals. Those from before are put back at the end of the context, or at the
    second signal. Outside the main thread, where Python allows no handlers, it never sets anything.

    With several processes JAX notices SIGTERM in any of them, and has all agree on a step; Ctrl-C is turned into one.

    Attributes:
        notice: what the command line prints at once on a first signal.
    """

    notice = "stopping: saves before the next step; a second Ctrl-C does not wait for it"

    def __init__(self):
        self.name: str | None = None
        self._several = jax.process_count() > 1
        self._requested, self._first = False, FirstSignal()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        return self

    def listen(self) -> None:
        """Install the handlers, if they are not; before there is anything to save, signals do what they always do."""
        if not self._previous and not self._requested and threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT,) if self._several else SIGNALS
            self._previous = {number: signal.signal(number, self) for number in numbers}

    def at(self, step: int) -> str | None:
        """Return the signal that asks to stop before this step, the same in all processes; call it at every step."""
        if self._several and self.name is None and reached_preemption_sync_point(step):
            self.name = signal.SIGTERM.name
        return self.name

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._first.is_repeat(number):
            return
        if self._requested:
            previous = self._previous.get(number)
            self._restore()
            previous(number, frame) if callable(previous) else signal.raise_signal(number)
            return
        self._requested = True
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.name = signal.Signals(number).name

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
