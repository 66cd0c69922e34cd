"""The elements of the pipeline: a clip that may still be kept, and the fate of one that was dropped."""

from dataclasses import dataclass, replace
from typing import Any

from videodit_data.caption_files import Captions
from videodit_data.footage.analysis_result import Clip
from videodit_data.footage.decisions import Decision


@dataclass(frozen=True)
class Spot:
    """A range of frames: a file, its hash and `file_system.state`, the first frame and their number."""

    clip: str
    name: str
    path: str
    hash: str
    start: int
    frames: int
    state: str = ""


@dataclass(frozen=True)
class Candidate:
    """A clip that may still be kept. whole: frames of its source. notes: what of the source is unknown."""

    spot: Spot
    clip: Clip
    fps: float
    height: int
    width: int
    whole: int
    captions: Captions
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return the clip's id, unique in its data set."""
        return self.spot.clip

    @property
    def rank(self) -> tuple[int, int, str]:
        """Return the sort key of near-duplicates, of which the first stays: more pixels, more frames, then the id."""
        return -self.height * self.width, -self.clip.frames, self.id

    def decided(self, stage: str, reason: str = "", duplicate: Spot | None = None, **why: Any) -> "Fate":
        """Return the fate of the clip: a decision with its reason."""
        decision = Decision(
            source=self.spot.name,
            stage=stage,
            reason=reason,
            clip=self.id,
            start=self.clip.start,
            frames=self.clip.frames,
            start_seconds=self.clip.start_seconds,
            seconds=self.clip.frames / self.fps,
            height=self.height,
            width=self.width,
            fps=self.fps,
            detail="; ".join(self.notes) or None,
            measures=dict(self.clip.measures),
            duplicate_of=None if duplicate is None else duplicate.clip,
        )
        return Fate(replace(decision, **why), self.spot, duplicate)


@dataclass(frozen=True)
class Fate:
    """A decision, the range of its frames (None of a source without any), and that of the clip that it repeats."""

    decision: Decision
    spot: Spot | None = None
    duplicate: Spot | None = None


def clip_id(name: str, start: int, frames: int) -> str:
    """Return the id of a part of a source: its name and frames, the last excluded."""
    return f"{name}#{start}-{start + frames}"
