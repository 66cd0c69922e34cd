"""One record as what a batch holds of it: a window of its frames, or the moments of its latents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from videodit_data.reading.clip_window import Window
from videodit_data.reading.transforms import choose_crop, cover_size
from videodit_data.storage.records import Moments, Record
from videodit_data.video import decode_clip, pictures_clip
from videodit_data.video.resampling import start_seconds


@dataclass(frozen=True)
class ClipShape:
    """What a clip is served as: frames, pixels, frames a second."""

    frames: int
    height: int
    width: int
    fps: float


def pixels(
    record: Record,
    shape: ClipShape,
    rng: np.random.Generator | None = None,
    out: UInt8[np.ndarray, "T Y X 3"] | None = None,
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Decode a window of the clip at the shape's rate, scaled to cover its pixels and cropped to them.

    The beginning and the centre, or with a generator any window and any crop. Written to `out` if that is given.
    VideoError names the record.
    """
    start = start_seconds(record.frames, record.fps, shape.frames, shape.fps, rng)
    size = cover_size(record.height, record.width, shape.height, shape.width)
    place = choose_crop(size, (shape.height, shape.width), rng)
    return window_pixels(record, shape, Window(start, *place, *size), out)


def window_pixels(
    record: Record, shape: ClipShape, window: Window, out: UInt8[np.ndarray, "T Y X 3"] | None = None
) -> UInt8[np.ndarray, "T Y X 3"]:
    """`pixels` of a window that is given."""
    wanted = {"fps": shape.fps, "frames": shape.frames, "start_seconds": window.start, "out": out}
    wanted |= {"size": (window.height, window.width), "crop": (window.top, window.left, shape.height, shape.width)}
    wanted["name"] = f"clip {record.id}"
    if record.pictures is not None:
        return pictures_clip(record.pictures, record.fps, **wanted)
    return decode_clip(record.video, **wanted)


def latents(record: Record, shape: ClipShape) -> tuple[Moments, Moments]:
    """(mean, logvar) of the first frames of the clip: a causal VAE's code of a beginning is the beginning of its code.

    ValueError when the latents were made of other pixels or at another rate than the shape says.
    """
    resized = (record.height, record.width) != (shape.height, shape.width)
    if resized or record.frames < shape.frames or abs(record.fps - shape.fps) >= 1e-3:
        raise ValueError(
            f"The latents of clip {record.id} code {record.frames} frames of {record.height} x {record.width} at "
            f"{record.fps:g} a second; {shape.frames} of {shape.height} x {shape.width} at {shape.fps:g} are asked for."
        )
    mean, logvar = record.latent.arrays()
    stride = (record.frames - 1) // max(1, len(mean) - 1)
    kept = 1 + (shape.frames - 1) // max(1, stride)
    return mean[:kept], logvar[:kept]
