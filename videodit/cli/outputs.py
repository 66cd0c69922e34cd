"""Generated clips to files: mp4, gif or png, each carrying where it comes from, with the same as JSON beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from videodit_data.video import encode

from videodit.train.pictures import contact_sheet

SUFFIXES = (".mp4", ".gif", ".png")


def check_suffix(path: Path) -> None:
    """ValueError unless the file is of a kind that can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out {path} must end in one of {', '.join(SUFFIXES)}")


def write_clip(path: Path, frames: UInt8[np.ndarray, "T Y X 3"], fps: float, facts: Mapping[str, Any]) -> None:
    """Writes a clip as what its file's name says (a png is a contact sheet), and `facts` in it and beside it."""
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    comment = json.dumps(facts)
    match path.suffix.lower():
        case ".mp4":
            encode(path, frames, fps, metadata={"comment": comment})
        case ".gif":
            first, *rest = [Image.fromarray(frame) for frame in frames]
            first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, comment=comment)
        case ".png":
            info = PngInfo()
            info.add_text("videodit", comment)
            sheet = contact_sheet([frames.astype(np.float32) / 127.5 - 1.0], [facts["prompt"]])
            sheet.save(path, pnginfo=info)
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
