"""The process that holds a lock: how a lock file names it, and whether it still runs."""

import dataclasses
import fcntl
import getpass
import json
import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process that holds a lock.

    Attributes:
        token: unique.
        since: when it took the lock, by its own clock.
        started: when it started, ticks of its machine's clock; 0 if unknown.
        boot: identifies the machine and its last start; empty if unknown.
        pid_namespace: in which `pid` counts; empty if unknown.
        device: of the lock file, where the process also holds its machine's lock (`flock`) on it; None otherwise.
    """

    token: str
    user: str
    host: str
    pid: int
    since: str
    started: int
    boot: str
    pid_namespace: str
    device: int | None

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.pid}, since {self.since}"

    def to_json(self) -> bytes:
        """Return the content of a lock file."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @staticmethod
    def from_json(content: bytes) -> "Owner | None":
        """Invert `to_json`; None when the content names no owner."""
        try:
            values = json.loads(content)
            valid = values.keys() == {field.name for field in dataclasses.fields(Owner)} and all(
                isinstance(values[field.name], field.type) for field in dataclasses.fields(Owner)
            )
        except (ValueError, AttributeError, RecursionError):
            return None
        return Owner(**values) if valid and str(Owner(**values)).isprintable() else None

    @staticmethod
    def current(file: int | None = None) -> "Owner":
        """Return this process, which holds the machine's lock on an open file, if one is given and it can."""
        device = None
        if file is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                device = os.fstat(file).st_dev
        return Owner(
            token=uuid.uuid4().hex,
            user=_user(),
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            started=_start_time(os.getpid()) or 0,
            boot=_read_text("/proc/sys/kernel/random/boot_id").strip(),
            pid_namespace=_pid_namespace(),
            device=device,
        )

    def runs(self, path: Path) -> bool | None:
        """Return whether the owner of the lock file at `path` still runs; None if this machine cannot tell."""
        here = Owner.current()
        if self.boot != here.boot or (not self.boot and self.host != here.host):
            return None
        if self.pid_namespace == here.pid_namespace:
            started = _start_time(self.pid)  # another process may have got its number
            return started is not None and (started == self.started or 0 in (started, self.started))
        return None if self.device is None else _is_locked(path, self.device)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Return when a process of this machine started, in ticks; 0 if that is unknown, None if it has ended."""
    if stat := _read_text(f"/proc/{pid}/stat"):
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return 0  # of another user
    return 0


def _is_locked(path: Path, device: int) -> bool | None:
    """Return whether a process of this machine holds its lock on a file; None if this cannot be told."""
    with suppress(OSError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_dev != device:
            return None  # mounted once more, in another container
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
    return None
