"""Generated clips as files: mp4, gif or png, each carrying its provenance, with the same as JSON beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from videodit_data.video import encode

from videodit.checkpoint.atomic_write import replace_atomically
from videodit.inference.contact_sheet import contact_sheet
from videodit.models.pixels import to_float

SUFFIXES = (".mp4", ".gif", ".png")


def check_suffix(path: Path) -> None:
    """Raise ValueError unless the file is of a kind that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} must end in one of {', '.join(SUFFIXES)}")


def write_clip(
    path: Path, frames: UInt8[np.ndarray, "T Y X 3"], fps: int | float, provenance: Mapping[str, Any]
) -> None:
    """Write a clip as the suffix says (a png is a contact sheet), and its provenance in it and beside it.

    Raises:
        DiskError: when the disk is full, read-only or failing; no part of the clip is left.
    """
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path.with_suffix(".json")) as sidecar:
        sidecar.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        with replace_atomically(path) as file:
            _write_frames(file, path.suffix.lower(), frames, fps, provenance)


def _write_frames(
    file: Path, kind: str, frames: UInt8[np.ndarray, "T Y X 3"], fps: int | float, provenance: Mapping[str, Any]
) -> None:
    """Write a clip, with its provenance in it, as a file of a kind of `SUFFIXES`."""
    comment = json.dumps(provenance)
    match kind:
        case ".mp4":
            encode(file, frames, fps, metadata={"comment": comment})
        case ".gif":
            first, *rest = [Image.fromarray(frame) for frame in frames]
            options = {"duration": round(1000 / fps), "loop": 0, "comment": comment}
            first.save(file, format="GIF", save_all=True, append_images=rest, **options)
        case ".png":
            info = PngInfo()
            info.add_text("videodit", comment)
            contact_sheet([to_float(frames)], [provenance["prompt"]]).save(file, format="PNG", pnginfo=info)
