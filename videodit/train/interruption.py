"""SIGTERM and Ctrl-C as a request to stop at the next step."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """While open, the first SIGTERM or SIGINT only sets `name`; a second one does what it did before.

    The handlers from before are put back at the end. Outside the main thread, where Python allows no handlers, it
    never sets anything.
    """

    def __init__(self):
        self.name: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
