"""Isolation: functions of video files in processes of their own, with limits, so that a hostile file affects no other.

`Isolated` calls any function by its name; a crash, too much memory or too much time is a `VideoError` then as well.
Faults of the machine (a full disk, a file that is missing for a moment) are a `RuntimeError` instead: they are no fault
of the file, and must not be recorded for it.
"""

import base64
import dataclasses
import importlib
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from videodit_data.video import VideoError, VideoInfo

_START_SECONDS = 120.0  # for a process to import what it needs


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
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: list[_Worker] = []

    def __call__(self, path: str | os.PathLike[str], *, name: str = "", **arguments: Any) -> Any:
        """Return the function's result; VideoError when it raises anything or exceeds the limits.

        RuntimeError when the file, or what the function writes, cannot be read or written as things are.
        """
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self._function, self.limits)
            self._all.append(worker)
        try:
            return worker.call(Path(path), name or os.fspath(path), arguments)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._all:
            worker.end()

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
        return VideoInfo(**super().__call__(path, name=name, most_pixels=self.limits.pixels))


class _Worker:
    def __init__(self, function: str, limits: Limits):
        self._function, self._limits, self._process = function, limits, None

    def call(self, path: Path, name: str, arguments: dict[str, Any]) -> Any:
        try:
            seconds = self._limits.time(path.stat().st_size)
        except OSError as error:
            raise RuntimeError(f"{name}: {_trouble(error)}") from None
        request = {"path": str(path), "name": name, "arguments": arguments}
        answer = self._request(request, seconds)
        if answer == _KILLED:  # perhaps for memory that other processes took
            self.end()
            answer = self._request(request, seconds)
        if isinstance(answer, str):
            self.end()
            raise VideoError(f"{name}: {answer}.")
        if "trouble" in answer:
            raise RuntimeError(f"{name}: {answer['trouble']}")
        if "error" in answer:
            raise VideoError(answer["error"])
        return base64.b64decode(answer["bytes"]) if "bytes" in answer else answer["json"]

    def _request(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | str:
        """Send a request; returns the answer, or the fate of the process."""
        process = self._process or self._start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            return f"takes longer than {seconds:g} seconds"
        if not line.endswith(b"\n"):
            return _ended(process.wait())
        return json.loads(line)

    def _line(self, seconds: float) -> bytes | None:
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

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __spec__.name, self._function, str(self._limits.mebibytes)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, **pipes)
        if not self._line(_START_SECONDS):
            self.end()
            raise RuntimeError(f"No process for {self._function} within {self._limits.mebibytes} MiB could be started.")
        return self._process

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
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders' libraries may print
    (module, function), most = sys.argv[1].split(":"), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (most * 2**20, most * 2**20))
    called = getattr(importlib.import_module(module), function)
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer = _answer(called, request, most)
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
