"""One record to one training example, and many examples to one batch: what runs on the loader's threads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from videodit_data.records import Moments, Record, unpack
from videodit_data.spec import ArraySpec, BatchSpec
from videodit_data.tokenize import NoTokenizer, Tokenizer
from videodit_data.transforms import choose_caption, cover_size, covers, crop, start_seconds
from videodit_data.video import decode_clip
from videodit_data.windows import Window

Example = dict[str, Any]


@dataclass(frozen=True)
class ClipShape:
    """What a clip is served as: frames, pixels, frames a second."""

    frames: int
    height: int
    width: int
    fps: float

    def fits(self, frames: int, fps: float, content: str) -> bool:
        """Whether a clip of so many frames at that rate is long enough; latents can be cut but not resampled."""
        if content == "latent":
            return frames >= self.frames and abs(fps - self.fps) < 1e-3
        return covers(frames, fps, self.frames, self.fps)


def pixels(record: Record, shape: ClipShape, rng: np.random.Generator | None = None) -> UInt8[np.ndarray, "T Y X 3"]:
    """Decode a window of the clip at the shape's rate, scaled to cover its pixels and cropped to them.

    The beginning and the centre, or with a generator any window and any crop. VideoError names the record.
    """
    start = start_seconds(record.frames, record.fps, shape.frames, shape.fps, rng)
    size = cover_size(record.height, record.width, shape.height, shape.width)
    video = decode_clip(
        record.video, fps=shape.fps, frames=shape.frames, start_seconds=start, size=size, name=f"clip {record.id}"
    )
    return crop(video, shape.height, shape.width, rng)


def window_pixels(record: Record, shape: ClipShape, window: Window) -> UInt8[np.ndarray, "T Y X 3"]:
    """`pixels` of a window that is given."""
    size = window.height, window.width
    video = decode_clip(
        record.video,
        fps=shape.fps,
        frames=shape.frames,
        start_seconds=window.start,
        size=size,
        name=f"clip {record.id}",
    )
    return video[:, window.top : window.top + shape.height, window.left : window.left + shape.width]


def latents(record: Record, shape: ClipShape) -> tuple[Moments, Moments]:
    """(mean, logvar) of the first frames of the clip: a causal VAE's code of a beginning is the beginning of its code.

    ValueError when the latents were made of other pixels or at another rate than the shape says.
    """
    if (record.height, record.width) != (shape.height, shape.width) or not shape.fits(
        record.frames, record.fps, "latent"
    ):
        raise ValueError(
            f"The latents of clip {record.id} code {record.frames} frames of {record.height} x {record.width} at "
            f"{record.fps:g} a second; {shape.frames} of {shape.height} x {shape.width} at {shape.fps:g} are asked for."
        )
    mean, logvar = record.latent.arrays()
    stride = (record.frames - 1) // max(1, len(mean) - 1)
    kept = 1 + (shape.frames - 1) // max(1, stride)
    return mean[:kept], logvar[:kept]


@dataclass(frozen=True)
class MakeExample:
    """Packed record and generator to example; empty bytes give a row of padding. Pure, and can be pickled."""

    shape: ClipShape
    tokenizer: Tokenizer | NoTokenizer
    text_length: int
    caption_dropout: float
    augment: bool
    spec: BatchSpec

    def __call__(self, packed: bytes, rng: np.random.Generator) -> Example:
        """One example; every draw comes from `rng`, the caption's first."""
        if not packed:
            return {name: np.zeros(shape[1:], dtype) for name, (shape, dtype) in self.spec.items()} | {
                "clip_ids": "",
                "captions": "",
            }
        record, rng = unpack(packed), rng if self.augment else None
        caption = choose_caption(record.captions, self.caption_dropout, rng)
        ids, mask = self.tokenizer.encode([caption], self.text_length)
        if record.latent is None:
            content = {"video": pixels(record, self.shape, rng)}
        else:
            content = dict(zip(("latent_mean", "latent_logvar"), latents(record, self.shape), strict=True))
        return content | {
            "text_ids": ids[0],
            "text_mask": mask[0],
            "fps": np.float32(self.shape.fps),
            "clip_ids": record.id,
            "captions": caption,
        }


def collate(examples: Sequence[Example]) -> Example:
    """Examples to the fields of a `Batch`."""
    batch: Example = {"video": None, "latent_mean": None, "latent_logvar": None}
    for name in examples[0]:
        values = [example[name] for example in examples]
        batch[name] = tuple(values) if name in ("clip_ids", "captions") else np.stack(values)
    return batch


def batch_spec(rows: int, shape: ClipShape, text_length: int, first: Record) -> BatchSpec:
    """Shapes and dtypes of a batch of `rows`, for records of `first`'s kind."""
    spec = {
        "text_ids": ArraySpec((rows, text_length), np.dtype(np.int32)),
        "text_mask": ArraySpec((rows, text_length), np.dtype(bool)),
        "fps": ArraySpec((rows,), np.dtype(np.float32)),
    }
    if first.latent is None:
        video = ArraySpec((rows, shape.frames, shape.height, shape.width, 3), np.dtype(np.uint8))
        return {"video": video} | spec
    mean = latents(first, shape)[0]
    return dict.fromkeys(("latent_mean", "latent_logvar"), ArraySpec((rows, *mean.shape), mean.dtype)) | spec
