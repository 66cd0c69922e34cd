"""Signals that end a command, whatever it is doing: a line, and a status of 128 + the signal's number."""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from videodit.parallel.first_signal import FirstSignal

GRACE_SECONDS = 1.5
"""Time that a command has to end in order."""

SENTENCES = {
    signal.SIGINT: "interrupted: the same command resumes from what is saved",
    signal.SIGTERM: "terminated: the same command resumes from what is saved",
    signal.SIGHUP: "hung up: the same command resumes from what is saved",
}


class SignalWatch(threading.Thread):
    """Ends this process on SIGINT, SIGTERM or SIGHUP; for processes that do nothing but run a command.

    The first signal raises KeyboardInterrupt in the main thread, which Python does only between two of its
    instructions: not while XLA compiles, a file is decoded or a thread is joined. If the process is still there after
    `GRACE_SECONDS`, or when a second signal comes, this thread prints the sentence and ends the process. It learns of
    signals from the file descriptor that the C handler writes to. Nothing is cleaned up then: what a command writes
    has a temporary name until it is complete, and child processes end with their parent.

    A repeat of the first one (`first_signal`) is not a second one. A handler that is installed later and has a `notice`
    keeps the first signal to itself: the notice is printed, and the process goes on.

    Attributes:
        number: the signal that ends the process, None as long as there was none.
    """

    def __init__(self):
        super().__init__(daemon=True, name="signals")
        self.number: signal.Signals | None = None
        self._first, self._noticed = FirstSignal(), False
        self._until = float("inf")
        self._sent: int | None = None  # a signal from this thread, which is not a second one
        self._to_raise = True
        self._printing, self._printed = threading.Lock(), False
        self._reader = self._writer = -1

    def start(self) -> None:
        """Start to watch, in the main thread."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        super().start()
        sys.unraisablehook = self._raise_again
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SENTENCES:
            if signal.getsignal(number) != signal.SIG_IGN:  # as for the background jobs of a shell, and under nohup
                signal.signal(number, self._interrupt)

    @property
    def status(self) -> int:
        """The exit status."""
        return 128 + (self.number or signal.SIGINT)

    def conclude(self) -> int:
        """Print what ends the process, and end it if it is watched; otherwise return the status.

        Python's own end would wait for threads, and for devices that still compute.
        """
        if self.is_alive():
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            self._end_process()
        self._print_sentence()
        return self.status

    def run(self) -> None:
        while select.select([self._reader], [], [], self._seconds_left())[0]:
            for number in os.read(self._reader, 64):
                if number == 0:
                    self._signal_again()
                if number == self._sent:
                    self._sent = None
                    continue
                if number not in SENTENCES or self._first.is_repeat(number):
                    continue
                notice = getattr(signal.getsignal(number), "notice", None)
                if notice and not self._noticed:
                    self._noticed = True
                    _print(notice)
                elif self._until < float("inf"):
                    self._end_process()
                else:
                    self.number = signal.Signals(number)
                    self._until = time.monotonic() + GRACE_SECONDS
        self._end_process()

    def _seconds_left(self) -> float | None:
        return None if self._until == float("inf") else max(0.0, self._until - time.monotonic())

    def _end_process(self) -> NoReturn:
        self._print_sentence()
        os._exit(self.status)

    def _print_sentence(self) -> None:
        with self._printing:
            if not self._printed:
                _print(SENTENCES[self.number or signal.SIGINT])
            self._printed = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._to_raise:
            return  # a second signal: the thread ends the process
        if self._noticed and self.number is None:
            time.sleep(0.05)  # for the thread to see this signal
            if self.number is None:
                return  # a repeat, that Python has called the handler of late
        self._to_raise = False
        self.number = self.number or signal.Signals(number)
        logging.disable()  # of errors that follow from this
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                self._end_process()  # native modules may crash when their import is interrupted
            frame = frame.f_back
        raise KeyboardInterrupt

    def _raise_again(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raise a KeyboardInterrupt anew that came where Python drops exceptions, as in callbacks of its collector."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt) and self.number:
            os.write(self._writer, b"\0")
        else:
            sys.__unraisablehook__(unraisable)

    def _signal_again(self) -> None:
        time.sleep(0.02)  # let the main thread leave the hook, where the exception would be dropped again
        self._sent, self._to_raise = self.number, True
        signal.pthread_kill(threading.main_thread().ident, self._sent)


def _print(line: str) -> None:
    """Write a line to standard error, past buffers and locks that another thread may hold."""
    # A terminal's cursor may be hidden by a progress bar, at the end of its line.
    start, end = ("\r\x1b[K\x1b[?25h", "\r\n") if os.isatty(2) else ("", "\n")
    os.write(2, f"{start}{line}{end}".encode())
