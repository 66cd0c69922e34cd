"""Processes that end with the one that started them. `end_with_parent` is also in `videodit.child_process`."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread of `parent` that started it ends; at once if it has ended.

    Linux has this alone; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process with pipes as input and output, from any thread.

    The thread that starts it lives as long as this process, which makes `end_with_parent` in the child mean that.
    """
    return _starter.submit(_popen, command).result()


def _popen(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


_starter = ThreadPoolExecutor(1, "start-processes")
