"""Files that several processes make together, each its share, in a directory that all of them see."""

import time
from collections.abc import Callable, Sequence

import jax

from videodit.parallel.distributed import first_says, wait_for_all

POLL_SECONDS = 0.2


def each_its_share(names: Sequence[str], made: Callable[[str], bool], make: Callable[[str], None], what: str) -> None:
    """Makes what has not been made yet, and returns when all of it has.

    Shares are even in number, whatever has been made before. A process waits for the files of the others by looking for
    them: what devices compute together would not wait as long as that may take. When one ends early, JAX ends those
    that wait for it.

    Args:
        names: of all, the same in every process. made: whether one is there. make: makes it, whole or not at all.
    """
    there = first_says([made(name) for name in names])
    pending = [name for name, done in zip(names, there, strict=True) if not done]
    for name in pending[jax.process_index() :: jax.process_count()]:
        make(name)
    if jax.process_count() > 1:
        while not all(map(made, pending)):
            time.sleep(POLL_SECONDS)
    wait_for_all(what)
