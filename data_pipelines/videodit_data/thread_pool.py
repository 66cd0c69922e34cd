"""Threads for work that releases the interpreter's lock (decoding, encoding, hashing), results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, *, ahead: int | None = None
) -> Iterator[Result]:
    """Map a function over a few threads: results in the order of `items`, at most `ahead` calls ahead of the reader.

    Two a thread if `ahead` is None, and never less than one a thread. A reader that leaves early does not wait for
    calls under way.
    """
    if threads < 1:
        raise ValueError(f"ordered_map needs at least one thread, not {threads}.")
    pool = ThreadPoolExecutor(threads)
    most = 2 * threads if ahead is None else max(ahead, threads)
    futures: deque[Future[Result]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) > most:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
