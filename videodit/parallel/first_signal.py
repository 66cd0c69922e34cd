"""The first signal of a process, which may come twice: launchers signal all processes, a supervisor passes it on."""

import time

REPEAT_SECONDS = 1.0
"""Time in which the first signal may come again and count once."""


class FirstSignal:
    """The first signal that came, and when."""

    def __init__(self):
        self._first: tuple[int, float] | None = None

    def is_repeat(self, number: int) -> bool:
        """Return whether a signal that has just come is the first one again; call it for each that comes."""
        now = time.monotonic()
        if self._first is None:
            self._first = number, now
            return False
        first, since = self._first
        return number == first and now - since < REPEAT_SECONDS
