"""A lock on a directory in which one process at a time may write, on local and on network file systems.

The lock is a file that the file system creates only once. It names its owner, who touches it while running. The lock of
an owner that has ended is taken over: at once where the owner's machine is this one, else after a time in which nobody
touched it. Clocks are not compared, since those of two machines differ.
"""

import hashlib
import logging
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from videodit_data.storage.lock_owner import Owner
from videodit_data.storage.whole_file import write_all

HEARTBEAT_SECONDS = 10.0  # between two touches
SILENCE_SECONDS = 120.0  # without a touch, after which an owner on another machine counts as ended
POLL_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _LockFile:
    """A lock file as it was read: its content, when it was touched, and the owner if it names one."""

    content: bytes
    touched: int
    owner: Owner | None

    def __str__(self) -> str:
        return str(self.owner or "a process that is not named")


class DirectoryLock:
    """A lock on a directory, which is a file in it or beside it; a context manager, which serves once.

    Args:
        path: of the lock file; its directory is created if missing.
        what: the directory, for messages.
    """

    def __init__(self, path: Path, what: str | os.PathLike[str]):
        self._path, self._what = path, os.fspath(what)
        self._content = b""  # of the lock file of this process
        self._file: int | None = None
        self._lost, self._touched = False, 0.0
        self._end = threading.Event()
        self._heartbeat = threading.Thread(target=self._keep_touching, name="directory lock", daemon=True)

    def __enter__(self) -> "DirectoryLock":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, from an owner that has ended if need be, which a warning says.

        Raises:
            ValueError: when another process holds it.
        """
        try:
            self._take()
        except BaseException:
            self.release()
            raise
        for scratch in self._path.parent.glob(f"{self._path.name}.taking-*"):  # also of processes killed meanwhile
            scratch.unlink(missing_ok=True)
        self._touched = _now()
        self._heartbeat.start()

    def check(self) -> None:
        """Check before a write that this process still holds the lock, if it took it.

        Raises:
            RuntimeError: when another process has taken it over, or somebody has removed it.
        """
        if not self._content:
            return
        if _now() - self._touched > 3 * HEARTBEAT_SECONDS:  # this process was stopped, or its machine
            self._touch()
        if self._lost:
            present = _read(self._path)
            reason = f"{self._path} was removed" if present is None else f"it was taken over by {present}"
            raise RuntimeError(f"this process has lost the lock of {self._what}, and saves nothing more: {reason}")

    def release(self) -> None:
        """Remove the lock if this process holds it."""
        self._end.set()
        if self._heartbeat.is_alive():
            self._heartbeat.join()
        self._close()  # before the file is removed, of which network file systems would keep a copy
        if self._content and self._is_own(self._path):
            self._path.unlink(missing_ok=True)
        self._content = b""

    def _keep_touching(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            self._touch()

    def _touch(self) -> None:
        """Touch the lock file if it is still this process's own."""
        with suppress(OSError):  # the file system may be back at the next time
            self._lost = self._lost or not self._is_own(self._path)
            if not self._lost:
                os.utime(self._file)
                self._touched = _now()

    def _take(self) -> None:
        while not self._create(self._path):
            present = _read(self._path)
            if present is None:
                continue  # released in the meantime
            if not self._has_ended(self._path, present):
                raise ValueError(
                    f"{self._what} is in use by {present}: wait for its end or stop it; if it has ended for certain, "
                    f"remove {self._path}"
                )
            if self._succeed(present):
                _log.warning("%s: took over the lock of %s, which has ended", self._what, present)
                return

    def _succeed(self, dead: _LockFile) -> bool:
        """Take the place of an owner that has ended; returns whether this process has it.

        Its one successor is who creates the file named after it while it is the owner; that file becomes the lock.
        """
        claim = self._path.with_name(f"{self._path.name}.taking-{hashlib.sha256(dead.content).hexdigest()[:16]}")
        if not self._create(claim):
            other = _read(claim)
            if other is not None and self._has_ended(claim, other):
                claim.unlink(missing_ok=True)
            time.sleep(0.01)
            return False
        present = _read(self._path)
        if present is not None and present.content == dead.content:
            with suppress(FileNotFoundError):
                os.replace(claim, self._path)
        elif self._is_own(claim):
            claim.unlink(missing_ok=True)
        return self._is_own(self._path)

    def _create(self, path: Path) -> bool:
        """Create a lock file of this process; returns whether it has, False if there is one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_name(f"{self._path.name}.taking-{uuid.uuid4().hex}")
        try:
            self._write(scratch)
            try:
                os.link(scratch, path)
            except FileExistsError:
                return os.fstat(self._file).st_nlink > 1  # the answer to a first request may be lost on its way
            except FileNotFoundError:
                return False  # removed by the process that got the lock
            except OSError:  # a file system without links
                self._write(path)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            scratch.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        """Create a file that names this process, which keeps it open."""
        self._close()
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            self._content = Owner.current(self._file).to_json()
            write_all(self._file, self._content)
        except OSError:
            path.unlink()
            raise

    def _has_ended(self, path: Path, present: _LockFile) -> bool:
        """Return whether the owner of a lock file has ended or released it; it waits where only silence can tell."""
        runs = None if present.owner is None else present.owner.runs(path)
        if runs is not None:
            return not runs
        _log.warning(
            "%s is locked by %s: waiting for a sign of life, %g s at most", self._what, present, SILENCE_SECONDS
        )
        silence, last = 0.0, time.monotonic()
        while silence < SILENCE_SECONDS:
            time.sleep(POLL_SECONDS)
            now = _read(path)
            if now is None or now.content != present.content:
                return True
            if now.touched != present.touched:
                return False
            silence += min(time.monotonic() - last, 2 * POLL_SECONDS)  # not while the file system did not answer
            last = time.monotonic()
        return True

    def _is_own(self, path: Path) -> bool:
        present = _read(path)
        return present is not None and present.content == self._content

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _now() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _read(path: Path) -> _LockFile | None:
    """Read a lock file; None if there is none."""
    try:
        with path.open("rb") as file:
            content, touched = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    return _LockFile(content, touched, Owner.from_json(content))
