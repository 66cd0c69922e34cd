"""Staged clips as records."""

from videodit_data.footage import file_system
from videodit_data.footage.stages import Staged
from videodit_data.storage.records import Record


def record_of(clip: Staged) -> Record:
    """Return the record of a clip, its file read."""
    captions = clip.candidate.captions
    texts = captions.texts or ("",)
    return Record(
        id=clip.candidate.id,
        video=file_system.read(clip.path),
        captions=texts,
        fps=clip.fps,
        height=clip.height,
        width=clip.width,
        frames=clip.frames,
        source=captions.source or "",
        licence=captions.licence or "",
        sha256=clip.sha256,
        caption_sources=clip.caption_sources or (("file",) * len(texts) if captions.texts else ()),
    )
