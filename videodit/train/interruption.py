"""SIGTERM and Ctrl-C as a request to stop: at the next step, or at one that all processes agree on."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Records the first SIGTERM or SIGINT in `name` while open; a second one does what it did before.

    The handlers from before are put back at the end. Outside the main thread, where Python allows no handlers, it
    never sets anything.

    With several processes JAX notices SIGTERM in any of them, and has all agree on a step; Ctrl-C is turned into one.
    """

    def __init__(self):
        self.name: str | None = None
        self._several = jax.process_count() > 1
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGINT: self._forward} if self._several else dict.fromkeys(SIGNALS, self._record)
            self._previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def at(self, step: int) -> str | None:
        """Return the signal that asks to stop before this step, the same in all processes; call it at every step."""
        if self._several and self.name is None and reached_preemption_sync_point(step):
            self.name = signal.SIGTERM.name
        return self.name

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
