"""Timing of calls, and a file of results that is written row by row."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Rows:
    """A file of results, one JSON object per line, each on disk (and printed) as soon as it is measured."""

    def __init__(self, path: Path | None):
        self._path = path

    def add(self, **row: Any) -> None:
        """Append one result."""
        line = json.dumps(row, allow_nan=False)
        print(line, flush=True)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def median_seconds(call: Callable[[], object], wait: Callable[[object], object], repeats: int) -> float:
    """Return the median time of `repeats` calls, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        wait(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def first_sentence(error: BaseException) -> str:
    """Return an error's type and the first line of its message, at most 300 characters."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
