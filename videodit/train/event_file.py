"""TensorBoard's events, written by the caller itself: there is no queue to wait for when a disk is full."""

import socket
import struct
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from videodit.checkpoint.atomic_write import AppendFile

_VERSION = "brain.Event:2"


class EventFile:
    """A file of events in a directory that TensorBoard shows.

    Args:
        purge_step: the first step whose earlier events TensorBoard hides: a run that resumes writes them again.

    Raises:
        OSError: when the disk refuses, as `add` does.
    """

    def __init__(self, directory: Path, purge_step: int):
        directory.mkdir(exist_ok=True)
        self._file = AppendFile(directory / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}")
        self._append(Event(file_version=_VERSION))
        self._append(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, summary: Summary) -> None:
        """Append a summary of a step."""
        self._append(Event(step=step, summary=summary))

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        self._file.append(length + checksums[0] + data + checksums[1])

    def close(self) -> None:
        self._file.close()
