"""The few frames of a clip that a captioner receives."""

from dataclasses import dataclass

from videodit_data.captioning.captioner import Clip
from videodit_data.storage.records import Record
from videodit_data.video import decode_clip


@dataclass(frozen=True)
class Look:
    """Limits on a captioner's frames: their number, and the pixels of their longer side."""

    frames: int = 8
    side: int = 512

    def __post_init__(self) -> None:
        if self.frames < 1 or self.side < 1:
            raise ValueError(f"A captioner is shown at least one frame and pixel, not {self.frames} and {self.side}.")

    def at(self, record: Record) -> Clip:
        """Return what a captioner gets of a clip: evenly spaced frames, and its facts. VideoError names the record."""
        count = min(self.frames, record.frames)
        shrunk = min(1.0, self.side / max(record.height, record.width))
        frames = decode_clip(
            record.video,
            fps=count / record.seconds,
            frames=count,
            start_seconds=max(0.0, (record.seconds / count - 1 / record.fps) / 2),
            size=(max(1, round(record.height * shrunk)), max(1, round(record.width * shrunk))),
            name=f"clip {record.id}",
        )
        captions = tuple(filter(str.strip, record.captions))
        return Clip(record.id, record.sha256, frames, record.seconds, record.fps, captions)
