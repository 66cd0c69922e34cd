"""A program that hashes files for another one, which it delays as little as it can: see `shard_check`.

    python -I -S hash_files.py PARENT BYTES_PER_SECOND

reads paths, each ended by a zero byte, and writes a line for each: its sha256, or `!` and why it cannot be read. It has
the lowest priority, reads no faster than it is told to, and ends when the process PARENT does. It imports nothing of
the package, so as to start fast, and so repeats `boundary.child_process.end_with_parent` and `sha256` of
`storage.manifest`.
"""

import ctypes
import hashlib
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_CHUNK = 2**20


def hash_file(path: bytes, rate: float) -> str:
    """Return the sha256 of a file, read at `rate` bytes per second at most."""
    digest, buffer, start, done = hashlib.sha256(), memoryview(bytearray(_CHUNK)), time.monotonic(), 0
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "POSIX_FADV_NOREUSE"):  # pages that others use stay in memory before those read here
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            done += size
            time.sleep(max(0.0, start + done / rate - time.monotonic()))
    return digest.hexdigest()


def _stand_back(parent: int) -> None:
    """Take the lowest priority, and end with the parent."""
    os.nice(19)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    """Hash the files that the input names."""
    _stand_back(int(sys.argv[1]))
    for path in sys.stdin.buffer.read().split(b"\0")[:-1]:
        try:
            line = hash_file(path, float(sys.argv[2]))
        except OSError as error:
            line = f"!{error.strerror}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
