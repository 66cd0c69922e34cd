"""Buckets: the few shapes that clips of any size, aspect and length are served in, and which clip goes where.

A shape is known by what it costs the transformer: a token is a block of frames and pixels (`Token`), the first frame
being coded alone. Shapes of one resolution have about the same number of pixels, whatever their aspect.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from videodit_data.storage.dataset import ClipSize
from videodit_data.video.resampling import covers

TOO_SHORT, TOO_SMALL, OTHERWISE = "too short", "too small", "coded at another size or rate"
ONLY_IMAGES = "videos where the only length is that of images"
ONLY_VIDEOS = "images where no length is 1"


def check_frames(frames: int) -> None:
    """ValueError unless `frames` is 1 + 4k, the only clip lengths that a causal video VAE codes without remainder."""
    if frames < 1 or frames % 4 != 1:
        below = max(1, (frames - 1) // 4 * 4 + 1)
        raise ValueError(f"A clip has 1 + 4k frames; {frames} is not such a number, {below} and {below + 4} are.")


@dataclass(frozen=True)
class Token:
    """What one token stands for: frames after the first, and pixels a side; strides of VAE and patches multiplied."""

    frames: int = 4
    pixels: int = 16

    def __post_init__(self) -> None:
        if min(self.frames, self.pixels) < 1:
            raise ValueError(f"A token stands for at least 1 frame and 1 pixel, not {self.frames} and {self.pixels}.")

    def count(self, frames: int, height: int, width: int) -> int:
        """Tokens of a clip whose sizes divide."""
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
    """One shape for all clips, scaled to cover it, however small they are; `frames` are 1 + 4k, `fps` a second."""

    frames: int = 17
    height: int = 64
    width: int = 64
    fps: float = 8.0

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if min(self.height, self.width) < 1 or not self.fps > 0:
            raise ValueError(f"Clips have sides and a rate above 0; got {self}.")

    @property
    def bucket(self) -> Bucket:
        """The shape."""
        return Bucket(self.frames, self.height, self.width)

    def choose(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """The shape if a clip is long enough for it, or why not."""
        return self.bucket if covers(frames, fps, self.frames, self.fps) else TOO_SHORT

    def choose_coded(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """As `choose`, of latents, which can be cut but neither resampled nor scaled."""
        if (height, width) != (self.height, self.width) or abs(fps - self.fps) >= 1e-3:
            return OTHERWISE
        return self.bucket if frames >= self.frames else TOO_SHORT


@dataclass(frozen=True)
class Buckets:
    """All shapes, and what a clip must have to be served in one.

    Attributes:
        sides: resolutions, as the sides of squares of as many pixels.
        aspects: widths over heights.
        frames: lengths, each 1 + 4k; 1 is that of images, and serves no video.
        fps: frames a second that clips are served at.
        upsample: how far a clip may be enlarged at most; 1 is not at all.
        tokens: of a batch at most; it decides how many clips of each shape make one.
        token: what a token stands for.
    """

    sides: tuple[int, ...] = (256, 512)
    aspects: tuple[float, ...] = (9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9)
    frames: tuple[int, ...] = (1, 17, 33, 49, 81)
    fps: float = 16.0
    upsample: float = 1.0
    tokens: int = 32768
    token: Token = Token()

    def __post_init__(self) -> None:
        for frames in self.frames:
            check_frames(frames)
        if not (self.sides and self.aspects and self.frames):
            raise ValueError("Buckets need at least one side, one aspect and one number of frames.")
        if min(self.sides) < self.token.pixels:
            raise ValueError(f"Buckets' sides are at least {self.token.pixels} pixels, not {min(self.sides)}.")
        for name, value in (("aspects are", min(self.aspects)), ("rate is", self.fps)):
            if not 0 < value < math.inf:
                raise ValueError(f"Buckets' {name} above 0 and finite, not {value:g}.")
        if not self.upsample >= 1:
            raise ValueError(f"Buckets' upsample is at least 1, which enlarges nothing, not {self.upsample:g}.")
        if any((frames - 1) % self.token.frames for frames in self.frames):
            raise ValueError(f"Buckets have 1 + {self.token.frames}k frames, which {self.frames} are not all.")

    def all(self) -> list[Bucket]:
        """Every shape, in order."""
        shapes = {shape for side in self.sides for shape in self.pixels(side)}
        return sorted(Bucket(frames, *shape) for frames in self.frames for shape in shapes)

    def pixels(self, side: int) -> list[tuple[int, int]]:
        """(height, width) for each aspect: multiples of a token, of about side squared pixels."""
        step = self.token.pixels
        found = []
        for aspect in self.aspects:
            height = max(step, round(side / math.sqrt(aspect) / step) * step)
            found.append((height, max(step, round(height * aspect / step) * step)))
        return found

    def cost(self, bucket: Bucket) -> int:
        """Tokens of one clip."""
        return self.token.count(bucket.frames, bucket.height, bucket.width)

    def batch(self, bucket: Bucket) -> int:
        """Clips of a batch."""
        return self.tokens // self.cost(bucket)

    def choose(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """The best shape that a clip fills, or why there is none.

        The largest resolution that it need not be enlarged for (more than `upsample` allows), there the nearest aspect,
        and then the longest. A clip of one frame is an image, and only that.
        """
        image = frames == 1
        lengths = [n for n in self.frames if (n == 1) == image and (image or covers(frames, fps, n, self.fps))]
        if not lengths:
            return ONLY_VIDEOS if image else ONLY_IMAGES if set(self.frames) == {1} else TOO_SHORT
        wanted = math.log(width / height)
        for side in sorted(self.sides, reverse=True):
            y, x = min(self.pixels(side), key=lambda shape: (abs(math.log(shape[1] / shape[0]) - wanted), shape))
            if max(y / height, x / width) <= self.upsample + 1e-9:
                return Bucket(max(lengths), y, x)
        return TOO_SMALL

    def choose_coded(self, frames: int, fps: float, height: int, width: int) -> Bucket:
        """That of latents is the one that they were made in."""
        return Bucket(frames, height, width)


@dataclass(frozen=True)
class Assigned:
    """Of the clips of a data set, which shape each is served in.

    Attributes:
        buckets: the shapes that have a clip, in order.
        of: for each clip its place in `buckets`, or -1.
        dropped: how many clips have no shape, by reason.
        kept: of the pixels of the clips' own windows, the share that their crops keep, a bucket.
    """

    buckets: tuple[Bucket, ...]
    of: Int64[np.ndarray, " N"]
    dropped: dict[str, int]
    kept: tuple[float, ...]


def assign(choose: Callable[..., Bucket | str], clips: Iterable[ClipSize]) -> Assigned:
    """The shape of every clip, as `choose` says (`Buckets.choose`)."""
    known: dict[ClipSize, Bucket | str] = {}
    chosen, kept = [], []
    for clip in clips:
        if clip not in known:
            known[clip] = choose(*clip)
        chosen.append(found := known[clip])
        kept.append(_kept(found, *clip[2:]) if isinstance(found, Bucket) else 0.0)
    used = sorted({bucket for bucket in known.values() if isinstance(bucket, Bucket)})
    place = {bucket: number for number, bucket in enumerate(used)}
    of = np.array([place.get(bucket, -1) for bucket in chosen], np.int64)
    dropped = dict(sorted(Counter(reason for reason in chosen if isinstance(reason, str)).items()))
    shares = np.asarray(kept)
    return Assigned(tuple(used), of, dropped, tuple(float(shares[of == n].mean()) for n in range(len(used))))


def _kept(bucket: Bucket, height: int, width: int) -> float:
    """The share of a frame that is in the crop of it that has the bucket's aspect."""
    ratio = (bucket.width / bucket.height) / (width / height)
    return min(ratio, 1 / ratio)
