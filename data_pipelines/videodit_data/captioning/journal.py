"""A journal of captioners' answers, written line by line, so that a resumed run repeats no request."""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videodit_data.boundary.typed_json import parse_json
from videodit_data.captioning.captioner import Answer, Failure
from videodit_data.storage.whole_file import name_disk_errors, write_all


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


@dataclass(frozen=True)
class _Line:
    """The contents of a line: `captions`, or `failed` and `detail`."""

    clip: str
    sha256: str
    asked: str
    captions: Mapping[str, str] | None = None
    failed: str | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if (self.captions is None) == (self.failed is None):
            raise ValueError("it needs either 'captions' or 'failed'")


def read_entry(line: str | bytes, name: str = "not an answer of a captioner") -> Entry:
    """Invert `Entry.to_json`; `name` begins errors. ValueError when the line is none of these."""
    values = parse_json(line, _Line, name, nul=True)
    answer = values.captions if values.failed is None else Failure(values.failed, values.detail)
    return Entry(values.clip, values.sha256, values.asked, answer)


class Journal:
    """Entries in a file that one process writes, looked up by question; safe to share between threads.

    An entry is on the disk when `put` returns. A last line that was not written to its end is cut off. ValueError when
    another line cannot be read.
    """

    def __init__(self, path: Path):
        self._path, self._lock = path, threading.Lock()
        # Unbuffered: what a full disk refused must not be written later.
        self._file, self._reader = path.open("ab", buffering=0), path.open("rb")
        try:
            self._offsets = self._read()
        except BaseException:
            self._close()
            raise

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
                reason = str(error).removesuffix(".")
                raise ValueError(f"{self._path}, line {number}, is {reason}; remove the line to resume.") from error
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
        with self._lock, name_disk_errors(self._path):
            offset = self._file.seek(0, os.SEEK_END)
            lines = [entry.to_json().encode() + b"\n" for entry in entries]
            try:
                write_all(self._file.fileno(), b"".join(lines))
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
