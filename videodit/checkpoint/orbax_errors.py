"""Errors of Orbax and TensorStore in one line, and no other trace of them."""

import functools
import logging
import sys
import traceback
from typing import Any

from videodit.checkpoint.disk_error import walk_causes

_ORBAX = "orbax/checkpoint"  # in the paths of its files
_READERS = (_ORBAX, "OCDBT")  # in what asyncio logs of their futures


@functools.cache
def silence_orbax() -> None:
    """Keep tracebacks of Orbax's threads and abandoned reads from being printed: what matters of them is raised."""
    print_unraisable = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        frames = [frame.f_code for frame, _ in traceback.walk_tb(unraisable.exc_traceback)]
        files = [each.co_filename for each in (code, *frames) if each is not None]
        late = unraisable.object is None and "Event loop is closed" in str(unraisable.exc_value)  # of TensorStore
        if not late and not any(_ORBAX in file for file in files):
            print_unraisable(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(lambda record: not any(each in record.getMessage() for each in _READERS))
    logging.getLogger("absl").addFilter(lambda record: not (record.exc_info and _ORBAX in record.pathname))


def describe_error(error: BaseException) -> str:
    """Return one line about the first cause of an error."""
    cause = first_cause(error)
    text = " ".join(str(cause).split())
    text = text if isinstance(cause, ValueError | OSError) and text else f"{type(cause).__name__} {text}".strip()
    return text if len(text) <= 160 else text[:160] + "..."


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to this one."""
    *_, cause = walk_causes(error)
    return cause
