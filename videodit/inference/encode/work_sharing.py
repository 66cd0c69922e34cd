"""Files that several processes write, each its share, to a directory on a shared file system."""

from collections.abc import Callable, Sequence

import jax

from videodit.parallel.distributed import barrier, broadcast_from_main, is_main_process


def share_work(names: Sequence[str], exists: Callable[[str], bool], make: Callable[[str], None]) -> None:
    """Make the missing files, each in one process, and return when all of them exist.

    If a process fails, the others end too.

    Args:
        names: of all files, the same in every process.
        exists: returns whether a file exists.
        make: writes a file, which must not exist before it is complete.
    """
    barrier("before looking for existing files")  # before devices wait for the broadcast
    # The main process looks for all files: on a network file system, others may see new ones later.
    existing = broadcast_from_main([is_main_process() and exists(name) for name in names])
    missing = [name for name, name_exists in zip(names, existing, strict=True) if not name_exists]
    for name in missing[jax.process_index() :: jax.process_count()]:
        make(name)
    barrier("wrote missing files")
