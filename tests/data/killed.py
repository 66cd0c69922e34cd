"""A function for tests of isolation, which is killed as often as a file has letters."""

import os
import signal
from pathlib import Path

from videodit_data import video


def probe(path: str, *, name: str, flag: str) -> int:
    """Frames of a video."""
    left = Path(flag).read_text()
    if left:
        Path(flag).write_text(left[1:])
        os.kill(os.getpid(), signal.SIGKILL)
    return video.probe(path, name=name).frames
