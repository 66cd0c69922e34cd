"""Functions for tests of isolation."""

import os
import signal
from pathlib import Path
from typing import Any

from videodit_data import video
from videodit_data.video import transcode


def read_bytes(path: str, *, name: str) -> bytes:
    """Return the bytes of a file."""
    return Path(path).read_bytes()


def cut_length(path: str, *, name: str, start: int, frames: int, recode: dict[str, Any]) -> int:
    """Return the number of bytes of a part of a video."""
    return len(transcode.cut(path, start, frames, transcode.Recode(**recode), name=name))


def probe(path: str, *, name: str, flag: str) -> int:
    """Return the number of frames of a video; the process is killed once per letter in the file `flag`."""
    kills_left = Path(flag).read_text()
    if kills_left:
        Path(flag).write_text(kills_left[1:])
        os.kill(os.getpid(), signal.SIGKILL)
    return video.probe(path, name=name).frames


def decode_for_ever(path: str, *, name: str) -> None:
    """Create a file with the suffix ".decoding", and work in native code that keeps the interpreter's lock."""
    Path(path).with_suffix(".decoding").touch()
    pow(3, 10**9)
