"""A journal of captioners' answers, written line by line, so that a resumed run repeats no request."""

import fcntl
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videodit_data.captioning.captioner import Answer, Failure


@dataclass(frozen=True)
class Entry:
    """An answer about a clip. `question` is a hash of the clip, the captioner, the lengths and the frames."""

    clip: str
    sha256: str  # of the encoded file
    question: str
    answer: Answer

    def to_json(self) -> str:
        """Return the entry as one line of JSON."""
        values = {"clip": self.clip, "sha256": self.sha256, "asked": self.question}
        if isinstance(self.answer, Failure):
            values |= {"failed": self.answer.reason, "detail": self.answer.detail}
        else:
            values |= {"captions": dict(self.answer)}
        return json.dumps(values, ensure_ascii=False)


def read_entry(line: str | bytes) -> Entry:
    """Invert `Entry.to_json`. ValueError when the line is none of these."""
    try:
        values: dict[str, Any] = json.loads(line)
        answer: Answer = Failure(values["failed"], values["detail"]) if "failed" in values else dict(values["captions"])
        return Entry(values["clip"], values["sha256"], values["asked"], answer)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not an answer of a captioner: {error!r}") from error


class Journal:
    """Entries in a file, looked up by question; safe to share between threads, locked by one process at a time.

    An entry is on the disk when `put` returns. A last line that was not written to its end is cut off. ValueError when
    another line cannot be read, or another process holds the file.
    """

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        # Unbuffered: what a full disk refused must not be written later.
        self._file, self._reader = path.open("ab", buffering=0), path.open("rb")
        try:
            self._hold()
            self._offsets = self._read()
        except BaseException:
            self._close()
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{self._path} is written by another run: wait for its end.") from error

    def _read(self) -> dict[str, int]:
        """Return the byte offset of the answer to each question."""
        offsets, end = {}, 0
        for number, line in enumerate(self._reader, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            try:
                offsets[read_entry(line).question] = end
            except ValueError as error:
                raise ValueError(f"{self._path}, line {number}, is {error}; remove the line to resume.") from error
            end += len(line)
        return offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def get(self, question: str) -> Answer | None:
        """Return the answer to a question, None if there is none."""
        with self._lock:
            if (offset := self._offsets.get(question)) is None:
                return None
            self._reader.seek(offset)
            return read_entry(self._reader.readline()).answer

    def put(self, entries: Sequence[Entry]) -> None:
        """Append answers; after an error such as a full disk, earlier ones are intact."""
        if not entries:
            return
        with self._lock:
            offset = self._file.seek(0, os.SEEK_END)
            lines = [entry.to_json().encode() + b"\n" for entry in entries]
            rest = memoryview(b"".join(lines))
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(offset)
                raise
            for entry, line in zip(entries, lines, strict=True):
                self._offsets[entry.question] = offset
                offset += len(line)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._reader.close()
