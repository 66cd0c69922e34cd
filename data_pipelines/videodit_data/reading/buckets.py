"""Buckets: the few shapes that clips of any size, aspect and length are served in, and which clip goes where.

A bucket's size is counted in the transformer's tokens: a token is a block of frames and pixels (`TokenSize`), and the
first frame has tokens of its own. Buckets of one resolution have about as many pixels, whatever their aspect.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from videodit_data.storage.dataset import ClipSize
from videodit_data.video.resampling import covers

TOO_SHORT, TOO_SMALL, OTHER_SHAPE = "too short", "too small", "encoded at another size or rate"
ONLY_IMAGES = "videos where the only length is that of images"
ONLY_VIDEOS = "images where no length is 1"


def check_frames(frames: int) -> None:
    """Check that `frames` is 1 + 4k: a causal video VAE encodes only such clips without remainder.

    Raises:
        ValueError: for any other number.
    """
    if frames < 1 or frames % 4 != 1:
        below = max(1, (frames - 1) // 4 * 4 + 1)
        raise ValueError(f"A clip has 1 + 4k frames; {frames} is not such a number, {below} and {below + 4} are.")


@dataclass(frozen=True)
class TokenSize:
    """Frames (after the first) and pixels of each side that one token covers: strides of VAE and patches multiplied."""

    frames: int = 4
    pixels: int = 16

    def __post_init__(self) -> None:
        if min(self.frames, self.pixels) < 1:
            raise ValueError(f"A token covers at least 1 frame and 1 pixel, not {self.frames} and {self.pixels}.")

    def count(self, frames: int, height: int, width: int) -> int:
        """Return the tokens of a clip whose sizes divide."""
        return (1 + (frames - 1) // self.frames) * (height // self.pixels) * (width // self.pixels)


@dataclass(frozen=True, order=True)
class Bucket:
    """A shape that clips are served in."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames} x {self.height} x {self.width}"


@dataclass(frozen=True)
class OneSize:
    """One shape for all clips, scaled to cover it, however small they are.

    Attributes:
        frames: 1 + 4k.
        height, width: pixels.
        fps: frames per second.
    """

    frames: int = 17
    height: int = 64
    width: int = 64
    fps: float = 8.0

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if min(self.height, self.width) < 1 or not self.fps > 0:
            raise ValueError(f"Clips have a height, a width and a rate above 0; got {self}.")

    @property
    def bucket(self) -> Bucket:
        """Return the shape."""
        return Bucket(self.frames, self.height, self.width)

    def choose(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """Return the shape if a clip is long enough for it, or the reason why not."""
        return self.bucket if covers(frames, fps, self.frames, self.fps) else TOO_SHORT

    def choose_encoded(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """Return the shape or the reason why not, for latents: these can be cut, but neither resampled nor scaled."""
        if (height, width) != (self.height, self.width) or abs(fps - self.fps) >= 1e-3:
            return OTHER_SHAPE
        return self.bucket if frames >= self.frames else TOO_SHORT


@dataclass(frozen=True)
class Buckets:
    """All shapes, and the conditions for a clip to be served in one.

    Attributes:
        resolutions: 256 means about 256 x 256 pixels, whatever the aspect.
        aspects: widths over heights.
        frames: lengths, each 1 + 4k; 1 is that of images, and serves no video.
        fps: frames per second that clips are served at.
        max_upscale: how far a clip may be enlarged at most; 1 is not at all.
        tokens: of a batch at most; it decides how many clips of each shape make one.
        token: what one token covers.
    """

    resolutions: tuple[int, ...] = (256, 512)
    aspects: tuple[float, ...] = (9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9)
    frames: tuple[int, ...] = (1, 17, 33, 49, 81)
    fps: float = 16.0
    max_upscale: float = 1.0
    tokens: int = 32768
    token: TokenSize = TokenSize()

    def __post_init__(self) -> None:
        for frames in self.frames:
            check_frames(frames)
        if not (self.resolutions and self.aspects and self.frames):
            raise ValueError("Buckets need at least one resolution, one aspect and one number of frames.")
        if min(self.resolutions) < self.token.pixels:
            smallest = min(self.resolutions)
            raise ValueError(f"Buckets' resolutions are at least {self.token.pixels} pixels, not {smallest}.")
        for name, value in (("aspects are", min(self.aspects)), ("rate is", self.fps)):
            if not 0 < value < math.inf:
                raise ValueError(f"Buckets' {name} above 0 and finite, not {value:g}.")
        if not self.max_upscale >= 1:
            raise ValueError(f"Buckets' max_upscale is at least 1, which enlarges nothing, not {self.max_upscale:g}.")
        if any((frames - 1) % self.token.frames for frames in self.frames):
            raise ValueError(f"Buckets have 1 + {self.token.frames}k frames, which {self.frames} are not all.")

    def frame_sizes(self, resolution: int) -> list[tuple[int, int]]:
        """Return (height, width) for each aspect: multiples of a token, about resolution squared pixels."""
        step = self.token.pixels
        sizes = []
        for aspect in self.aspects:
            height = max(step, round(resolution / math.sqrt(aspect) / step) * step)
            sizes.append((height, max(step, round(height * aspect / step) * step)))
        return sizes

    def count_tokens(self, bucket: Bucket) -> int:
        """Return the tokens of one clip."""
        return self.token.count(bucket.frames, bucket.height, bucket.width)

    def batch_size(self, bucket: Bucket) -> int:
        """Return the number of clips that a batch's tokens allow."""
        return self.tokens // self.count_tokens(bucket)

    def choose(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """Return the best shape that a clip fills, or the reason why there is none.

        That is the largest resolution for which the clip need not be enlarged (by more than `max_upscale`), there the
        nearest aspect, and then the longest. A clip of one frame is an image, and only that.
        """
        image = frames == 1
        lengths = [n for n in self.frames if (n == 1) == image and (image or covers(frames, fps, n, self.fps))]
        if not lengths:
            return ONLY_VIDEOS if image else ONLY_IMAGES if set(self.frames) == {1} else TOO_SHORT
        log_aspect = math.log(width / height)
        for resolution in sorted(self.resolutions, reverse=True):
            sizes = self.frame_sizes(resolution)
            y, x = min(sizes, key=lambda size: (abs(math.log(size[1] / size[0]) - log_aspect), size))
            if max(y / height, x / width) <= self.max_upscale + 1e-9:
                return Bucket(max(lengths), y, x)
        return TOO_SMALL

    def choose_encoded(self, frames: int, fps: float, height: int, width: int) -> Bucket:
        """Return the shape of latents: the one that they were encoded in."""
        return Bucket(frames, height, width)


@dataclass(frozen=True)
class BucketAssignment:
    """The shape that each clip of a data set is served in.

    Attributes:
        buckets: the shapes that have a clip, in order.
        indices: for each clip the index of its shape in `buckets`, or -1.
        dropped: how many clips have no shape, by reason.
        crop_shares: for each bucket the share of its clips' pixels that is inside the crop.
    """

    buckets: tuple[Bucket, ...]
    indices: Int64[np.ndarray, " N"]
    dropped: dict[str, int]
    crop_shares: tuple[float, ...]

    @property
    def num_served(self) -> int:
        """Return the number of clips that have a shape."""
        return int((self.indices >= 0).sum())


def assign_buckets(choose: Callable[..., Bucket | str], clips: Iterable[ClipSize]) -> BucketAssignment:
    """Assign every clip its shape, as `choose` (such as `Buckets.choose`) says."""
    cache: dict[ClipSize, Bucket | str] = {}
    choices, shares = [], []
    for clip in clips:
        if clip not in cache:
            cache[clip] = choose(*clip)
        choices.append(choice := cache[clip])
        shares.append(_crop_share(choice, *clip[2:]) if isinstance(choice, Bucket) else 0.0)
    buckets = sorted({bucket for bucket in cache.values() if isinstance(bucket, Bucket)})
    index_of = {bucket: index for index, bucket in enumerate(buckets)}
    indices = np.array([index_of.get(choice, -1) for choice in choices], np.int64)
    dropped = dict(sorted(Counter(reason for reason in choices if isinstance(reason, str)).items()))
    means = tuple(float(np.asarray(shares)[indices == index].mean()) for index in range(len(buckets)))
    return BucketAssignment(tuple(buckets), indices, dropped, means)


def _crop_share(bucket: Bucket, height: int, width: int) -> float:
    """Return the share of a frame that is inside its crop to the bucket's aspect."""
    ratio = (bucket.width / bucket.height) / (width / height)
    return min(ratio, 1 / ratio)
