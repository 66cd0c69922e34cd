"""Locks on directories that the processes of a run write together."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from videodit_data.storage.directory_lock import DirectoryLock

from videodit.parallel.distributed import on_main_process

WORKDIR_LOCK = "run.lock"


@contextmanager
def hold_in_main_process(lock: DirectoryLock) -> Iterator[DirectoryLock]:
    """Hold a lock, which the main process takes for all of them.

    Raises:
        ValueError: in all processes, when another run holds it.
    """
    try:
        on_main_process(lock.acquire)
        yield lock
    finally:
        lock.release()


def lock_workdir(workdir: Path) -> AbstractContextManager[DirectoryLock]:
    """Hold the lock of a run's directory; errors as `hold_in_main_process`."""
    return hold_in_main_process(DirectoryLock(workdir / WORKDIR_LOCK, workdir))
