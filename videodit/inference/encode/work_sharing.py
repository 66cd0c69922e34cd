"""Files that several processes make together, each its share, in a directory that all of them see."""

from collections.abc import Callable, Sequence

import jax

from videodit.parallel.distributed import barrier, broadcast_from_main, is_main_process


def each_its_share(names: Sequence[str], made: Callable[[str], bool], make: Callable[[str], None]) -> None:
    """Makes what has not been made yet, and returns when all of it has.

    Shares are even in number, whatever has been made before. When a process ends early, those that wait for it do.

    Args:
        names: of all, the same in every process. made: whether one is there. make: makes it, whole or not at all.
    """
    barrier("came to look for what is there")  # before devices wait for what the first one says
    # The first one looks for all: on a network's disc others may not see the same, or not for a while see what comes.
    there = broadcast_from_main([is_main_process() and made(name) for name in names])
    pending = [name for name, done in zip(names, there, strict=True) if not done]
    for name in pending[jax.process_index() :: jax.process_count()]:
        make(name)
    barrier("made what was not there")
