"""Video files looked at in processes of their own, with limits: what a hostile file does to a decoder costs that file.

`verify` here is `video.verify` but for that: a crash, too much memory or too much time is a `VideoError` as well.
"""

import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from videodit_data.video import VideoError, VideoInfo, verify


@dataclass(frozen=True)
class Limits:
    """Of one file: seconds that it may take, MiB that the process may hold, and pixels of a frame."""

    seconds: float | int = 120.0
    mebibytes: int = 4096
    pixels: int = 2**26


class Verifier:
    """Processes that verify files, one a caller at a time; started when first needed, and anew after a crash."""

    def __init__(self, limits: Limits | None = None):
        self._limits, self._idle = limits or Limits(), queue.SimpleQueue()
        self._all: list[_Worker] = []

    def __call__(self, path: str | os.PathLike[str], *, name: str = "") -> VideoInfo:
        """Facts of a file as `video.verify` gives them; VideoError also when the limits are passed."""
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self._limits)
            self._all.append(worker)
        try:
            return worker.verify(Path(path), name or os.fspath(path))
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._all:
            worker.end()

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Worker:
    def __init__(self, limits: Limits):
        self._limits, self._process = limits, None

    def verify(self, path: Path, name: str) -> VideoInfo:
        answer = self._ask({"path": str(path), "name": name, "pixels": self._limits.pixels})
        if isinstance(answer, str):
            self.end()
            raise VideoError(f"{name}: {answer}.")
        if "error" in answer:
            raise VideoError(answer["error"])
        return VideoInfo(**answer["info"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | str:
        """The answer, or what became of the process."""
        if self._process is None:
            self._process = self._start()
        process = self._process
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(time.monotonic() + self._limits.seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            return f"takes longer than {self._limits.seconds:g} seconds"
        if not line.endswith(b"\n"):
            return f"the decoder ended itself ({_ending(process.wait())})"
        return json.loads(line)

    def _line(self, until: float) -> bytes | None:
        """What the process says, b"" if it ended, None if time did."""
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            read = os.read(self._process.stdout.fileno(), 2**16)
            if not read:
                return b""
            line += read
        return line

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __spec__.name, str(self._limits.mebibytes)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _main() -> None:
    """Answers requests, a line each, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders' libraries may print
    most = int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            info = verify(request["path"], name=request["name"], most_pixels=request["pixels"])
            answer = {"info": asdict(info)}
        except VideoError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": f"{request['name']}: needs more than {sys.argv[1]} MiB."}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _main()
