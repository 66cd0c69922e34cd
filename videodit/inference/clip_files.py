"""Generated clips as files: mp4, gif or png, each carrying its provenance, with the same as JSON beside it."""

import itertools
import json
import logging
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
GIF_CENTISECONDS = 100  # per second: a GIF's unit of time
MIN_GIF_DELAY = 2
"""The shortest time, in hundredths of a second, that viewers show a GIF's frame for."""


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
            _write_frames(file, path.name, frames, fps, provenance)


def choose_gif_frames(count: int, fps: int | float) -> tuple[list[int], list[int]]:
    """Return the indices of the frames that a GIF can show of a clip, and for how many hundredths of a second each.

    A GIF counts whole hundredths, and viewers show a delay below `MIN_GIF_DELAY` as a tenth of a second. The delays add
    up to the clip's duration, rounded to hundredths; they differ by at most one.
    """
    total = max(round(GIF_CENTISECONDS * count / fps), MIN_GIF_DELAY)
    shown = min(count, total // MIN_GIF_DELAY)
    ends = [round(total * (index + 1) / shown) for index in range(shown)]
    delays = [end - start for start, end in itertools.pairwise([0, *ends])]
    return [index * count // shown for index in range(shown)], delays


def _write_frames(
    file: Path, name: str, frames: UInt8[np.ndarray, "T Y X 3"], fps: int | float, provenance: Mapping[str, Any]
) -> None:
    """Write a clip, with its provenance in it, to a file that will have a name with one of `SUFFIXES`."""
    comment = json.dumps(provenance)
    match Path(name).suffix.lower():
        case ".mp4":
            encode(file, frames, fps, metadata={"comment": comment})
        case ".gif":
            indices, centiseconds = choose_gif_frames(len(frames), fps)
            if len(indices) < len(frames):
                logging.getLogger(__name__).warning(
                    "%s has %d of the %d frames, in the same time: a GIF shows at most %d frames per second, not %g.",
                    *(name, len(indices), len(frames), GIF_CENTISECONDS // MIN_GIF_DELAY, fps),
                )
            first, *rest = [Image.fromarray(frames[index]) for index in indices]
            options = {"duration": [10 * each for each in centiseconds], "loop": 0, "comment": comment}
            first.save(file, format="GIF", save_all=True, append_images=rest, **options)
        case ".png":
            info = PngInfo()
            info.add_text("videodit", comment)
            contact_sheet([to_float(frames)], [provenance["prompt"]]).save(file, format="PNG", pnginfo=info)
