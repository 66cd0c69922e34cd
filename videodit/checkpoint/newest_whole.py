"""The newest checkpoint that can be read: a damaged one is named, and the one before it is tried."""

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from videodit.checkpoint.checksums import find_damaged
from videodit.checkpoint.disk_error import DiskError, describe_write_error, find_error_number
from videodit.checkpoint.orbax_errors import describe_error, first_cause, silence_orbax

T = TypeVar("T")

# Of the machine, the network or the user's rights: the checkpoint may be whole.
_NOT_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAUTHENTICATED")


class DamagedCheckpoint(ValueError):
    """A checkpoint, or a part of it, is not what was saved."""


class OtherStructure(ValueError):
    """A checkpoint is whole, and holds other arrays than those that are to be read."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was read of a checkpoint.

    Attributes:
        arrays: those of `value`, a tree.
        checksums: that were saved with them, by dotted path; None of a version that had none.
    """

    value: T
    arrays: PyTree
    checksums: Mapping[str, str] | None


@dataclass(frozen=True)
class NewestWhole(Generic[T]):
    """What the newest checkpoint that can be read holds.

    Attributes:
        step: of that checkpoint.
        damaged: steps of later ones, which could not be read.
    """

    value: T
    step: int
    damaged: list[int]


def find_newest_whole(
    directory: Path, steps: Sequence[int], read: Callable[[Path], Reading[T]], *, strict: bool = False
) -> NewestWhole[T]:
    """Read the newest checkpoint that can be read, and check it; of several processes all take the same one.

    Only damage makes an earlier one be taken.

    Args:
        directory: of the checkpoints.
        steps: of those to try, ascending.
        read: reads the checkpoint in a folder, or raises.
        strict: try the last one alone.

    Raises:
        ValueError: when none can be read, with the reasons.
        OtherStructure: when the newest whole one has another structure, as `read` says.
        DiskError: when the disk fails to read it, twice.
    """
    silence_orbax()
    reasons: dict[int, str] = {}
    for step in reversed(steps[-1:] if strict else steps):
        reading, reason = _try(read, directory / str(step))
        if reading is not None:
            for damaged, why in reasons.items():
                logging.getLogger(__name__).warning(
                    "%s: the checkpoint of step %d is damaged (%s): that of step %d is taken",
                    *(directory, damaged, why, step),
                )
            return NewestWhole(reading.value, step, list(reasons))
        reasons[step] = reason
    described = "; ".join(f"that of step {step} is damaged ({reason})" for step, reason in reasons.items())
    earlier = next(
        (f"; there is an earlier one, of step {step}" for step in reversed(steps) if step not in reasons), ""
    )
    raise ValueError(f"no checkpoint in {directory} can be read: {described}{earlier}")


def _try(read: Callable[[Path], Reading[T]], folder: Path) -> tuple[Reading[T] | None, str]:
    """Return what `read` returns if it is whole in all processes, else None and the reason."""
    reading, reason, failure = None, "", None
    try:
        reading = _read_again_if_disk_fails(read, folder)
    except jax.errors.JaxRuntimeError:  # of a process that is gone, which answers nothing
        raise
    except Exception as error:  # readers of damaged files raise anything
        if isinstance(error, DiskError | OtherStructure) or not _is_damage(error):
            failure = error
        else:
            reason = describe_error(error)
    any_failed, any_damaged = _anywhere(failure is not None, reading is None)
    if failure is not None:
        raise failure
    if any_failed:
        raise ValueError(f"another process could not read {folder}")
    if any_damaged:
        return None, reason or "another process cannot read it"
    if reading is not None and reading.checksums is not None:
        damaged = find_damaged(reading.arrays, reading.checksums)
        if damaged:
            more = f" and {len(damaged) - 1} more arrays are" if len(damaged) > 1 else " is"
            return None, f"{damaged[0]}{more} not what was saved"
    return reading, reason


def _read_again_if_disk_fails(read: Callable[[Path], Reading[T]], folder: Path) -> Reading[T]:
    """Return what `read` returns, at a second attempt if the disk failed at the first; DiskError if it fails again."""
    try:
        return read(folder)
    except Exception as error:
        if find_error_number(error) != errno.EIO:
            raise
    try:
        return read(folder)
    except Exception as error:
        if find_error_number(error) != errno.EIO:
            raise
        raise DiskError(describe_write_error(error, folder)) from error


def _anywhere(*flags: bool) -> list[bool]:
    """Return, for each flag, whether it is set in any of the processes."""
    if jax.process_count() == 1:
        return list(flags)
    return np.asarray(multihost_utils.process_allgather(np.array(flags))).reshape(-1, len(flags)).any(axis=0).tolist()


def _is_damage(error: Exception) -> bool:
    cause = first_cause(error)
    if isinstance(cause, MemoryError):
        return False
    if isinstance(cause, OSError):
        return cause.errno in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    return not any(status in str(cause) for status in _NOT_DAMAGE)
