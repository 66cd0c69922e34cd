"""A captioner for the tests, which logs its requests."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from videodit_data.captioning.captioner import Clip, Failure
from videodit_data.captioning.lengths import Length

# Environment variables: the file of requests, and the clip at which to raise.
LOG_VARIABLE, FAIL_VARIABLE = "VIDEODIT_TEST_ASKED", "VIDEODIT_TEST_FAIL"


def caption(clips: Sequence[Clip], lengths: Sequence[Length]) -> list[dict[str, str] | Failure]:
    """Return captions that name the clip; a failure for every clip of silent.mp4."""
    answers: list[dict[str, str] | Failure] = []
    for clip in clips:
        if clip.id == os.environ.get(FAIL_VARIABLE):
            raise RuntimeError("the captioner is out")
        with Path(os.environ[LOG_VARIABLE]).open("a") as file:
            file.write(clip.id + "\n")
        if clip.id.startswith("one.mp4"):
            answers.append(Failure("refusal", "I will not"))
        elif clip.id.startswith("silent.mp4"):
            answers.append(Failure("too short"))
        else:
            text = f"a clip with the name {clip.id} of {len(clip.frames)} frames"
            answers.append({length.name: text for length in lengths})
    return answers


class Crowd:
    """A captioner that counts concurrent calls."""

    def __init__(self) -> None:
        self.most, self._now, self._lock = 0, 0, threading.Lock()

    def __call__(self, clips: Sequence[Clip], lengths: Sequence[Length]) -> list[dict[str, str]]:
        """Return the same captions for all clips."""
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.01)
        with self._lock:
            self._now -= 1
        return [{length.name: "a clip that somebody saw" for length in lengths} for _ in clips]


crowd = Crowd()
