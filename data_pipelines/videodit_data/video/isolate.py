"""Isolation: functions of video files in processes of their own, with limits, so that a hostile file affects no other.

`Isolated` calls any function by its name; a crash, too much memory or too much time is a `VideoError` then as well.
Faults of the machine (a full disk, a file that is missing for a moment) are a `RuntimeError` instead: they are no fault
of the file, and must not be recorded for it.
"""

import base64
import dataclasses
import importlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from videodit_data.boundary import child_process
from videodit_data.boundary.typed_json import convert, parse_json, shorten
from videodit_data.video import VideoError, VideoInfo

_START_SECONDS = 120.0  # for a process to import what it needs
_SPARE_SECONDS = 10.0  # after which a process ends itself, should nobody have ended it at its limit


@dataclass(frozen=True)
class Limits:
    """Limits per file: seconds of processing, MiB of the process, and pixels of a frame.

    seconds_per_mebibyte: more time for large files, which hold more frames. Nothing else about a file that may lie
    bounds its frames; at 20, footage of one hour in 100 MiB has 33 minutes more.
    """

    seconds: float | int = 120.0
    mebibytes: int = 4096
    pixels: int = 2**26
    seconds_per_mebibyte: float | int = 0.0

    def time(self, size: int) -> float:
        """Return the seconds allowed for a file of `size` bytes."""
        return self.seconds + self.seconds_per_mebibyte * size / 2**20


class Isolated:
    """A function "module:name" of a file, run in processes, one per concurrent caller; each process serves many files.

    They are started when first needed, and anew after a crash. The function is called with the path, `name` and further
    arguments, which are JSON; it returns JSON, bytes or a dataclass of JSON (of which the fields come back).
    """

    def __init__(self, function: str, limits: Limits | None = None):
        self._function, self.limits = function, limits or Limits()
        self._all: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._closed, self._lock = False, threading.Lock()

    def __call__(self, path: str | os.PathLike[str], *, name: str = "", **arguments: Any) -> Any:
        """Return the function's result; VideoError when it raises anything or exceeds the limits.

        RuntimeError when the file, or what the function writes, cannot be read or written as things are.
        """
        with self._lock:
            if not self._idle:
                self._idle.append(_Worker(self._start_process, self.limits))
                self._all.append(self._idle[-1])
            worker = self._idle.pop()
        try:
            return worker.call(Path(path), name or os.fspath(path), arguments)
        finally:
            with self._lock:
                self._idle.append(worker)
                closed = self._closed
            if closed:
                worker.end()

    def close(self) -> None:
        """End the processes, also of calls under way, which raise; later calls raise RuntimeError."""
        with self._lock:
            self._closed, idle = True, list(self._idle)
        for worker in self._all:
            worker.end() if worker in idle else worker.kill()

    def _start_process(self, worker: "_Worker") -> None:
        command = [sys.executable, "-m", __spec__.name, self._function, str(self.limits.mebibytes), str(os.getpid())]
        with self._lock:
            if self._closed:
                raise RuntimeError("stopped")
            worker._process = child_process.start(command)
        if not worker.read_line(_START_SECONDS):
            worker.end()
            raise RuntimeError(f"No process for {self._function} within {self.limits.mebibytes} MiB could be started.")

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Verifier(Isolated):
    """`video.verify`, isolated."""

    def __init__(self, limits: Limits | None = None):
        super().__init__("videodit_data.video:verify", limits)

    def __call__(self, path: str | os.PathLike[str], *, name: str = "") -> VideoInfo:
        """Return the facts of a file as `video.verify` gives them; VideoError also when the limits are exceeded."""
        facts = super().__call__(path, name=name, most_pixels=self.limits.pixels)
        name = name or os.fspath(path)
        try:
            info = convert(facts, VideoInfo, name)
        except ValueError as error:
            raise VideoError(str(error)) from error
        try:
            check_info(info)
        except ValueError as error:
            raise VideoError(f"{name}: {error}.") from error
        return info


def check_info(info: VideoInfo) -> None:
    """Check that facts are those of a video. ValueError if not."""
    for key in ("fps", "frames", "height", "width"):
        if not 0 < (value := getattr(info, key)) < math.inf:
            raise ValueError(f"{key} is {shorten(value)}; expected a number above 0")


@dataclass(frozen=True)
class _Answer:
    """The answer of a process: what the function returned, its error, or a trouble of the machine."""

    json: object = None
    bytes: str | None = None
    error: str | None = None
    trouble: str | None = None


class _Worker:
    def __init__(self, start_process: Callable[["_Worker"], None], limits: Limits):
        self._start_process, self._limits = start_process, limits
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, path: Path, name: str, arguments: dict[str, Any]) -> Any:
        try:
            seconds = self._limits.time(path.stat().st_size)
        except OSError as error:
            raise RuntimeError(f"{name}: {_trouble(error)}") from None
        request = {"path": str(path), "name": name, "arguments": arguments, "seconds": seconds + _SPARE_SECONDS}
        answer = self._request(request, seconds)
        if answer == _KILLED:  # perhaps for memory that other processes took
            self.end()
            answer = self._request(request, seconds)
        if isinstance(answer, str):
            self.end()
            raise VideoError(f"{name}: {answer}.")
        if answer.trouble is not None:
            raise RuntimeError(f"{name}: {answer.trouble}")
        if answer.error is not None:
            raise VideoError(answer.error)
        try:
            return answer.json if answer.bytes is None else base64.b64decode(answer.bytes)
        except ValueError as error:
            raise VideoError(f"{name}: the decoder's answer cannot be read ({error}).") from error

    def _request(self, request: dict[str, Any], seconds: float) -> _Answer | str:
        """Send a request; returns the answer, or the fate of the process."""
        if self._process is None:
            self._start_process(self)
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self.read_line(seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            return f"takes longer than {seconds:g} seconds"
        if not line.endswith(b"\n"):
            return _ended(self._process.wait())
        try:
            return parse_json(line, _Answer, "answer", nul=True)
        except ValueError as error:
            return f"the decoder ended with no answer that can be read ({str(error).removesuffix('.')})"

    def read_line(self, seconds: float) -> bytes | None:
        """Return the process's next line, b"" if it ended, None on a timeout."""
        line, until = bytearray(), time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            read = os.read(self._process.stdout.fileno(), 2**16)
            if not read:
                return b""
            line += read
        return bytes(line)

    def kill(self) -> None:
        """Kill the process, from any thread; the one that waits for its answer sees it end."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _ended(status: int) -> str:
    return f"the decoder ended itself ({signal.Signals(-status).name if status < 0 else f'status {status}'})"


_KILLED = _ended(-signal.SIGKILL)


def _trouble(error: OSError) -> str:
    return f"cannot be read or worked on now ({error.strerror or error}); run the command again."


def _main() -> None:
    """Answer requests, a line each, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    child_process.end_with_parent(int(sys.argv[3]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders' libraries may print
    (module, function), most = sys.argv[1].split(":"), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (most * 2**20, most * 2**20))
    called = getattr(importlib.import_module(module), function)
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])  # which ends this process, should the parent not
        answer = _answer(called, request, most)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _answer(function: Callable[..., Any], request: dict[str, Any], most: int) -> dict[str, Any]:
    try:
        result = function(request["path"], name=request["name"], **request["arguments"])
    except MemoryError:
        return {"error": f"{request['name']}: needs more than {most} MiB."}
    except Exception as error:  # a library may raise anything on a hostile file
        if (trouble := _system_error(error, request["path"])) is not None:
            return {"trouble": _trouble(trouble)}
        if isinstance(error, VideoError):
            return {"error": str(error)}
        return {"error": f"{request['name']}: {type(error).__name__}, {' '.join(str(error).split())}."}
    if isinstance(result, bytes):
        return {"bytes": base64.b64encode(result).decode()}
    return {"json": dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result}


def _system_error(error: Exception, path: str) -> OSError | None:
    """Return the system's error, if that and not the file's content is the cause.

    FFmpeg has the system's errors for damage, too; they count as the system's where the file cannot be read to its end.
    """
    cause = error.__cause__ if isinstance(error, VideoError) else error
    if not isinstance(cause, OSError) or not isinstance(cause, av.FFmpegError):
        return cause if isinstance(cause, OSError) else None
    try:
        with open(path, "rb") as file:
            while file.read(2**22):
                pass
    except OSError as unreadable:
        return unreadable
    return None


if __name__ == "__main__":
    _main()
