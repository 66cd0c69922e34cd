"""Files that several processes make together, each its share, in a directory that all of them see."""

from collections.abc import Callable, Sequence

import jax

from videodit.parallel.distributed import meet


def each_its_share(names: Sequence[str], made: Callable[[str], bool], make: Callable[[str], None]) -> None:
    """Makes what has not been made yet, and returns when all of it has.

    Shares are even in number, whatever has been made before. When a process ends early, those that wait for it do.

    Args:
        names: of all, the same in every process. made: whether one is there. make: makes it, whole or not at all.
    """
    pending = [name for name in names if not made(name)]
    meet("looked for what is there")  # before one makes what another looks for
    for name in pending[jax.process_index() :: jax.process_count()]:
        make(name)
    meet("made what was not there")
