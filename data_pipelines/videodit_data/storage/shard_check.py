"""A check that the files of data sets still have the hashes that their manifests name, at little cost to a run.

A process of its own hashes one file after another (`hash_files`), while the run goes on; what is small is hashed here.
"""

import logging
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from videodit_data.boundary.input_files import NotRegular
from videodit_data.storage import hash_files
from videodit_data.storage.dataset import Dataset
from videodit_data.storage.manifest import sha256

AT_ONCE = 2**25  # bytes that are hashed before a run starts: a tenth of a second
AT_END = 2**28  # bytes left to hash that the end of a run waits for: a second
RATE = 2e8  # bytes per second that the process reads at most, so that batches are read undelayed

_LOG = logging.getLogger(__name__)


class _File(NamedTuple):
    """A file of a data set, and what its hash has to be."""

    dataset: str
    path: str
    sha256: str
    bytes: int


class ChangedShard(ValueError):
    """A file of a data set is not what it was when the data set was written."""


class ShardCheck:
    """Checks all files of data sets once, those that are named twice too; a context manager.

    The order is random: runs that are often interrupted come to all files in time.

    Attributes:
        checked, total: the number of files whose hash was right so far, and of all.

    Args:
        process, processes: of several processes that read the same files, each checks its share.

    Raises:
        ChangedShard: when a file has another hash; here, by `poll`, and at the end.
    """

    def __init__(self, datasets: Iterable[Dataset], process: int = 0, processes: int = 1):
        files = {
            (os.path.realpath(path), digest): _File(dataset.path, path, digest, os.path.getsize(path))
            for dataset in datasets
            for path, digest in dataset.hashes.items()
        }
        share = [files[key] for key in sorted(files)][process::processes]
        random.Random().shuffle(share)
        self.checked, self.total = 0, len(share)
        self._left, self._process, self._read = deque(share), None, b""
        if self._bytes_left() <= AT_ONCE:
            self._hash_here()
            return
        try:
            self._process = _start([file.path for file in share])
        except OSError as error:
            _LOG.warning("The shards cannot be checked in the background (%s).", error.strerror)

    def __enter__(self) -> "ShardCheck":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def poll(self) -> None:
        """Take note of the files that have been hashed meanwhile; never waits."""
        if self._process is None:
            return
        try:
            while data := os.read(self._process.stdout.fileno(), 2**16):
                *lines, self._read = (self._read + data).split(b"\n")
                for line in lines:
                    self._compare(line.decode())
        except BlockingIOError:
            return
        self.close()  # it has ended
        if self._left:
            _LOG.warning("The process that checks the shards has ended early.")

    def finish(self, *, hurry: bool = False) -> None:
        """Check the files that are left if they are small; log how many were checked otherwise.

        Args:
            hurry: check no more of them, however small.
        """
        self.poll()
        if self._left and (hurry or self._bytes_left() > AT_END):
            message = "%d of %d shards were compared with the hashes in their manifests before this command ended."
            _LOG.warning(message, self.checked, self.total)
        else:
            self.check_rest()

    def check_rest(self) -> None:
        """Check the files that are left, however long it takes."""
        self.poll()
        self.close()
        self._hash_here()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def _bytes_left(self) -> int:
        return sum(file.bytes for file in self._left)

    def _hash_here(self) -> None:
        while self._left:
            try:
                self._compare(sha256(Path(self._left[0].path)))
            except OSError as error:
                self._compare(f"!{error.strerror}")
            except NotRegular as error:
                self._compare(f"!{error}")

    def _compare(self, answer: str) -> None:
        file = self._left.popleft()
        if answer != file.sha256:
            self.close()
            found = f"cannot be read ({answer[1:]})" if answer[:1] == "!" else f"has sha256 {answer}"
            raise ChangedShard(
                f"{file.dataset} is damaged or was exchanged: {os.path.basename(file.path)} {found}, not "
                f"{file.sha256}; build or copy the data set again."
            )
        self.checked += 1


def _start(paths: list[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-I", "-S", hash_files.__file__, str(os.getpid()), str(RATE)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,  # a terminal's Ctrl-C is for the run
    )
    process.stdin.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
    process.stdin.close()
    os.set_blocking(process.stdout.fileno(), False)
    return process
