"""A parent for one of several processes, which reports the loss of another one where native code aborts without a word.

Gloo and JAX's coordination service end a process whose peer is gone, from threads of their own, with a stack trace that
nothing inside it can prevent.
"""

import os
import re
import select
import signal
import sys
import time
from types import FrameType

from videodit.child_process import end_with_parent

PEER_LOST = 3
"""The exit status of a process that ends because another one is gone."""

HOLD_SECONDS = 5.0  # that lines about trouble wait for the end of the process, which may explain them
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_TROUBLE = re.compile(rb"[WEF]\d{4} \d\d:\d\d:\d\d|terminate called|\*\*\* |ERROR:|Traceback ")
_LOG_PREFIX = re.compile(r"^[WEF]\d{4} [^\]]*\] ")
_PEER = re.compile(rb"another task died|gloo|coordination.service", re.IGNORECASE)


def describe_lost_peer(process: str, reason: str) -> str:
    """Return the sentence of a process, as it is to be called, that ends because another one is gone."""
    return (
        f"videodit: {process} stops, since another one is gone or cannot be reached ({reason}); look for what ended "
        "it, and start all of them again: they resume from the last checkpoint"
    )


def supervise(process: str, *, hold: bool = True) -> None:
    """Return in a child process, which goes on with the program; this one waits for it and exits with its status.

    Signals are passed on. The child's standard error is, too, except for logs and tracebacks of its last seconds: where
    another process is gone, a sentence stands in their place, and the status is `PEER_LOST`. Call it before there
    are threads, and before JAX is imported.

    Args:
        process: what the sentence calls it.
        hold: False passes on all lines at once.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent, (reader, writer) = os.getpid(), os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child == 0:
        end_with_parent(parent)
        os.setpgid(0, 0)  # a terminal's Ctrl-C comes once, through the parent
        os.dup2(writer, 2)
        os.close(reader)
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return
    os.close(writer)

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in _FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    errors = _Errors(reader, hold)
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        errors.pass_on(0.5)
    sys.exit(errors.conclude(process, os.waitstatus_to_exitcode(ended[1])))


class _Errors:
    """The standard error of a child: passes lines on, holding those back that its end may explain."""

    def __init__(self, reader: int, hold: bool):
        self._reader, self._hold = reader, hold
        self._rest = b""  # of a line
        self._delayed: list[bytes] = []
        self._since = 0.0

    def pass_on(self, seconds: float) -> bool:
        """Wait for output, and pass it on; returns whether there may be more."""
        data = b""
        if select.select([self._reader], [], [], seconds)[0]:
            data = os.read(self._reader, 2**16)
            if not data:
                time.sleep(seconds)  # closed: the child is about to end
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._hold and not self._delayed and _TROUBLE.match(line):
                self._since = time.monotonic()
            elif not self._delayed:
                _write(line + b"\n")
                continue
            self._delayed.append(line + b"\n")
        if self._delayed and time.monotonic() - self._since > HOLD_SECONDS:
            self._release()
        return bool(data)

    def conclude(self, process: str, status: int) -> int:
        """Report how the child ended, with the status of `waitstatus_to_exitcode`; returns the exit status."""
        while self.pass_on(0.0):
            pass
        self._delayed.append(self._rest)
        lost = [line for line in self._delayed if _PEER.search(line)]
        if status == PEER_LOST:  # it has said so
            self._delayed = [line for line in self._delayed if line.startswith(b"videodit: ")]
            self._release()
        elif lost and (status < 0 or status == 1):
            reason = " ".join(_LOG_PREFIX.sub("", lost[0].decode(errors="replace")).split())[:300]
            _write(describe_lost_peer(process, reason).encode() + b"\n")
            return PEER_LOST
        else:
            self._release()
        if status < 0:
            _write(f"videodit: {process} was ended by {signal.Signals(-status).name}\n".encode())
        return status if status >= 0 else 128 - status

    def _release(self) -> None:
        _write(b"".join(self._delayed))
        self._delayed = []


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
