"""One record as a batch holds it: a window of its frames, or the mean and log-variance of its latents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from videodit_data.reading.clip_window import Window
from videodit_data.reading.transforms import choose_crop, cover_size
from videodit_data.storage.records import LatentArray, Record
from videodit_data.video import decode_clip, resample_pictures
from videodit_data.video.resampling import choose_start


@dataclass(frozen=True)
class ClipShape:
    """The shape that a clip is served in: frames, pixels, frames per second."""

    frames: int
    height: int
    width: int
    fps: float


def decode_pixels(
    record: Record,
    shape: ClipShape,
    rng: np.random.Generator | None = None,
    out: UInt8[np.ndarray, "T Y X 3"] | None = None,
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Decode a window of the clip at the shape's rate, scaled to cover its pixels and cropped to them.

    The window is the beginning and the centre, or with a generator any window and any crop.

    Args:
        out: array to write to, if given.

    Raises:
        VideoError: when it cannot be decoded; the message names the record.
    """
    start = choose_start(record.frames, record.fps, shape.frames, shape.fps, rng)
    size = cover_size(record.height, record.width, shape.height, shape.width)
    corner = choose_crop(size, (shape.height, shape.width), rng)
    return decode_window(record, shape, Window(start, *corner, *size), out)


def decode_window(
    record: Record, shape: ClipShape, window: Window, out: UInt8[np.ndarray, "T Y X 3"] | None = None
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Decode a chosen window of the clip, as `decode_pixels`."""
    size, crop = (window.height, window.width), (window.top, window.left, shape.height, shape.width)
    name = f"clip {record.id}"
    if record.pictures is not None:
        return resample_pictures(
            record.pictures,
            record.fps,
            fps=shape.fps,
            frames=shape.frames,
            start_seconds=window.start,
            size=size,
            crop=crop,
            out=out,
            name=name,
        )
    return decode_clip(
        record.video,
        fps=shape.fps,
        frames=shape.frames,
        start_seconds=window.start,
        size=size,
        crop=crop,
        out=out,
        name=name,
    )


def read_latents(record: Record, shape: ClipShape) -> tuple[LatentArray, LatentArray]:
    """Return (mean, logvar) of the first frames of the clip.

    A causal VAE's latents of a clip's beginning are the beginning of the clip's latents.

    Raises:
        ValueError: when the latents were encoded from other pixels or at another rate than the shape's.
    """
    resized = (record.height, record.width) != (shape.height, shape.width)
    if resized or record.frames < shape.frames or abs(record.fps - shape.fps) >= 1e-3:
        raise ValueError(
            f"The latents of clip {record.id} encode {record.frames} frames of {record.height} x {record.width} at "
            f"{record.fps:g} per second; the reader needs {shape.frames} of {shape.height} x {shape.width} at "
            f"{shape.fps:g}."
        )
    mean, logvar = record.latent.arrays()
    stride = (record.frames - 1) // max(1, len(mean) - 1)
    length = 1 + (shape.frames - 1) // max(1, stride)
    return mean[:length], logvar[:length]
