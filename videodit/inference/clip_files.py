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
    """Write a clip as the suffix says (a png is a contact sheet), and its provenance in it and beside it."""
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    comment = json.dumps(provenance)
    match path.suffix.lower():
        case ".mp4":
            encode(path, frames, fps, metadata={"comment": comment})
        case ".gif":
            first, *rest = [Image.fromarray(frame) for frame in frames]
            first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, comment=comment)
        case ".png":
            info = PngInfo()
            info.add_text("videodit", comment)
            contact_sheet([to_float(frames)], [provenance["prompt"]]).save(path, pnginfo=info)
    path.with_suffix(".json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
