"""The data of a run: what is read, and in which shapes."""

from dataclasses import dataclass, field
from typing import Annotated

from videodit.ranges import Count, Positive, Range, Share, Size, check_ranges


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """Packed sequences: rows of one length that latents of clips of any size share.

    Attributes:
        length: tokens of a row; 0 packs nothing: all clips are served in one size.
        clips: the most clips of a row.
        look_ahead: clips that the rows of a batch are filled from.
    """

    length: Count = 0
    clips: Size = 16
    look_ahead: Size = 512

    def __post_init__(self):
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class BucketsConfig:
    """Shapes that clips are served in, each clip in the best that it fills; a step is compiled for each shape in use.

    tokens: of a batch at most, as a transformer counts them (an autoencoder: latent positions); they say how many clips
        of each shape make one. 0 has no buckets: all clips are served in one size.
    resolutions: 256 means about 256 x 256 pixels. aspects: widths over heights. frames: lengths, each 1 + 4k; 1 is
        that of images. max_upscale: how far a clip may be enlarged at most. Latents have shapes of their own.
    """

    tokens: Count = 0
    resolutions: tuple[Size, ...] = (256,)
    aspects: tuple[Positive, ...] = (9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9)
    frames: tuple[Size, ...] = (1, 17, 33)
    max_upscale: Positive = 1.0

    def __post_init__(self):
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and as what clips.

    path, eval_path: data sets to train on and to evaluate on; None holds nothing out. Several may be named, with
        weights: "DIR:3,DIR:1".
    frames, height, width, fps: the clips' size; frames are 1 + 4k. In buckets or packed, that of clips that are
        sampled and planned for.
    batch_size: clips of a step, over all processes; packed, rows; in buckets their tokens say how many.
    buckets: clips of any size, each in the best of several shapes.
    packing: clips of latents of any size, several a row.
    eval_clips: held-out clips of one evaluation.
    text_length: tokens of a caption, padded or cut.
    caption_dropout: share of captions left empty, so that the model learns to do without (guidance needs that).
    conditions: further inputs that batches carry for the model: names, or NAME=MODULE:FUNCTION of your own
        (`videodit_data.reading.conditions`).
    num_threads, prefetch: threads that read and decode, and batches that they may be ahead.
    """

    path: str
    eval_path: str | None = None
    frames: Size
    height: Size
    width: Size
    fps: Positive
    batch_size: Size
    eval_clips: Size = 64
    text_length: Size = 32
    caption_dropout: Share = 0.1
    conditions: tuple[str, ...] = ()
    num_threads: Annotated[int, Range(1, 4096)] = 4
    prefetch: Annotated[int, Range(0, 4096)] = 4
    buckets: BucketsConfig = field(default_factory=BucketsConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)

    @property
    def bucketed(self) -> bool:
        """Whether batches are of several shapes."""
        return self.buckets.tokens > 0

    @property
    def packed(self) -> bool:
        """Whether rows hold several clips (packed sequences)."""
        return self.packing.length > 0

    def __post_init__(self):
        check_ranges(self)
        if self.packed and self.bucketed:
            raise ValueError("packing.length and buckets.tokens are both above 0: clips are packed or in buckets")
