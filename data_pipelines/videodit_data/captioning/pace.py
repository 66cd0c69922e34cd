"""Rate limits of requests to a server: a token bucket, a pause shared by all threads, and exponential backoff."""

import random
import threading
import time
from collections.abc import Callable

Sleep = Callable[[float], object]


class Pace:
    """A token bucket that threads share: `per_minute` requests a minute at most, `burst` of them at once.

    `clock` returns seconds, `sleep` waits for some.
    """

    def __init__(
        self,
        per_minute: float | int | None,
        burst: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = time.sleep,
    ):
        if (per_minute is not None and not per_minute > 0) or burst < 1:
            raise ValueError(f"A rate needs more than 0 requests a minute and 1 at once, not {per_minute} and {burst}.")
        self._interval = 60 / per_minute if per_minute else 0.0
        self._burst, self._clock, self._sleep = burst, clock, sleep
        self._filled = float("-inf")  # when the bucket is full again
        self._resume = float("-inf")
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait until one more request may be made."""
        while True:
            with self._lock:
                now = self._clock()
                due = max(self._resume, self._filled - (self._burst - 1) * self._interval)
                if due <= now:
                    self._filled = max(self._filled, now) + self._interval
                    return
            self._sleep(due - now)

    def pause(self, seconds: float | int) -> None:
        """Block new requests of all threads for so many seconds."""
        with self._lock:
            self._resume = max(self._resume, self._clock() + seconds)


def backoff(attempt: int, first: float | int, most: float | int, rng: random.Random) -> float:
    """Return the seconds before attempt `attempt` + 1: doubled each time, at most `most`, times a random 0.5 to 1."""
    return min(float(most), first * 2.0 ** min(attempt - 1, 30)) * rng.uniform(0.5, 1.0)
