"""Functions on hostile files for processes of their own with limits (`Isolated`): plain JSON in and out."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videodit_data import video
from videodit_data.captioning.look import Look
from videodit_data.footage.analyse import AnalysisConfig, analyze
from videodit_data.reading.transforms import cover_size
from videodit_data.storage.records import Record
from videodit_data.video import transcode
from videodit_data.video.transcode import Recode

_HEIGHT, _QUALITY = 120, 80  # of the frames of a thumbnail: pixels; JPEG


def run(path: str, *, name: str, what: str, **arguments: Any) -> Any:
    """Return the result of one of the functions below; called through this one, they share processes."""
    return {"analysis": analysis, "cut": cut, "thumbnail": thumbnail, "look": look}[what](path, name=name, **arguments)


def analysis(path: str, config: dict[str, Any], name: str, most_pixels: int) -> dict[str, Any]:
    """Return the `Analysis` of a file as JSON. VideoError as `analyze`."""
    return analyze(path, AnalysisConfig.from_json(config), name=name, most_pixels=most_pixels).to_json()


def cut(path: str, start: int, frames: int, recode: dict[str, Any] | None, name: str, out: str) -> dict[str, Any]:
    """Write frames of a file (or, where `recode` is None, the file as it is) to `out`; returns facts of the output.

    VideoError where they cannot be decoded.
    """
    if recode is None:
        data = Path(path).read_bytes()
    else:
        data = transcode.cut(path, start, frames, Recode(**recode), name=name)
    info = video.probe(data, name=name)
    if info.frames != frames:
        raise video.VideoError(f"{name}: has {info.frames} frames, not {frames}, after it was cut.")
    Path(out).write_bytes(data)
    facts = {key: getattr(info, key) for key in ("fps", "frames", "height", "width")}
    return facts | {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def thumbnail(path: str, start: int, frames: int, name: str, out: str) -> None:
    """Write a JPEG to `out`: first, middle and last frame side by side. VideoError where they cannot be decoded."""
    info = video.probe(path, name=name)
    size = cover_size(info.height, info.width, _HEIGHT, 1)
    moments = (start, start + frames // 2, start + frames - 1)
    pictures = [video.decode(path, moment, 1, size=size, name=name)[0] for moment in moments]
    sink = io.BytesIO()
    try:
        Image.fromarray(np.concatenate(pictures, axis=1)).save(sink, format="JPEG", quality=_QUALITY)
    except OSError as error:  # a JPEG has at most 65,535 pixels a side
        raise video.VideoError(f"{name}: no JPEG can be made ({error}).") from None
    Path(out).write_bytes(sink.getvalue())


def look(path: str, facts: dict[str, Any], look: dict[str, Any], name: str) -> bytes:
    """Return the frames of a clip that a `Look` selects, as an .npy file. VideoError where it cannot be decoded."""
    data = Path(path).read_bytes()
    record = Record(id=name, video=data, captions=("",), source="", licence="", sha256="", **facts)
    sink = io.BytesIO()
    np.save(sink, Look(**look).at(record).frames, allow_pickle=False)
    return sink.getvalue()
