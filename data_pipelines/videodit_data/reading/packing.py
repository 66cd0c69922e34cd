"""Packed sequences: clips of different size and length share one sequence, so that one compiled step serves them all.

As in NaViT (Dehghani et al. 2023, arXiv:2307.06304): a packed sequence holds the tokens of several clips, and each
token carries its clip (`segments`) and its position there (`positions`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Shaped

from videodit_data.reading.buckets import Bucket, Buckets, TokenSize

TOO_LONG = "longer than a packed sequence"


@dataclass(frozen=True)
class Packing:
    """Packed sequences of latents.

    Attributes:
        length: tokens of a sequence.
        clips: of a sequence at most; its text is that of as many captions.
        look_ahead: clips that a batch's sequences are filled from.
        patch: latent positions (t, y, x) of a token.
        stride: frames and pixels of a latent position, as the autoencoder has them.
        buckets: shapes that videos would be encoded in, for statistics of data sets that are not encoded yet.
    """

    length: int
    clips: int = 16
    look_ahead: int = 512
    patch: tuple[int, int, int] = (1, 2, 2)
    stride: tuple[int, int] = (4, 8)
    buckets: Buckets = field(default_factory=Buckets)

    def __post_init__(self) -> None:
        for name in ("length", "clips", "look_ahead", "patch", "stride"):
            value = getattr(self, name)
            if np.min(value) < 1:
                raise ValueError(f"A packing's {name} is at least 1{' each way' * (np.size(value) > 1)}, not {value}.")
        if self.patch[1] != self.patch[2]:
            raise ValueError(f"Patches are as high as wide; got {self.patch}.")

    @property
    def token(self) -> TokenSize:
        """Return the frames and pixels that one token covers."""
        return TokenSize(self.stride[0] * self.patch[0], self.stride[1] * self.patch[1])

    def choose(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """Return the shape that a video would be encoded in, or the reason why there is none."""
        choice = self.buckets.choose(frames, fps, height, width)
        return choice if isinstance(choice, str) else self._check_length(choice)

    def choose_encoded(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """Return the shape that latents were encoded in, if a sequence holds it."""
        return self._check_length(Bucket(frames, height, width))

    def _check_length(self, bucket: Bucket) -> Bucket | str:
        fits = self.token.count(bucket.frames, bucket.height, bucket.width) <= self.length
        return bucket if fits else TOO_LONG


def first_fit_decreasing(
    costs: Sequence[int], bins: int, capacity: int, max_items: int, urgent: int = 0
) -> list[list[int]]:
    """Pack items into bins: the largest first, each into the first bin that has room for it.

    Item `urgent` goes first, whatever its size. Equal items go in order, and an item that fits nowhere is skipped.

    Args:
        costs: of the items. Each of the `bins` bins holds `capacity` of it, and `max_items` items.

    Returns:
        The items of each bin, in order.

    Raises:
        ValueError: for an item that is larger than a bin.
    """
    order = sorted(range(len(costs)), key=lambda item: (item != urgent, -costs[item], item))
    if order and max(costs) > capacity:
        raise ValueError(f"A clip of {max(costs)} tokens does not fit a packed sequence of {capacity}.")
    packed: list[list[int]] = [[] for _ in range(bins)]
    room = [capacity] * bins
    smallest = min(costs, default=0)
    for item in order:
        target = next((b for b in range(bins) if room[b] >= costs[item] and len(packed[b]) < max_items), None)
        if target is not None:
            packed[target].append(item)
            room[target] -= costs[item]
        elif max(room) < smallest:
            break
    return [sorted(items) for items in packed]


def patchify(
    latent: Shaped[np.ndarray, "t y x C"],
    patch: tuple[int, int, int],
    out: Shaped[np.ndarray, "L P"] | None = None,
) -> Shaped[np.ndarray, "L P"]:
    """Return patches in raster order (t, y, x), the features of each in the order (t, y, x, channel).

    Args:
        out: contiguous array to write to, if given.

    Raises:
        ValueError: when a side is not a multiple of its patch.
    """
    (t, y, x), (pt, py, px), C = token_grid(latent.shape[:3], patch), patch, latent.shape[3]
    if out is None:
        out = np.empty((t * y * x, pt * py * px * C), latent.dtype)
    assert out.dtype == latent.dtype, f"{latent.dtype} does not go into {out.dtype}"
    # A patch's rows are contiguous in both, and are copied as one number each: a third of the time.
    row = np.dtype((np.void, px * C * latent.itemsize))
    rows = np.ascontiguousarray(latent).reshape(t, pt, y, py, x, px * C).view(row)
    out.reshape(t, y, x, pt, py, px * C).view(row)[...] = rows.transpose(0, 2, 4, 1, 3, 5)
    return out


def token_grid(shape: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the number of tokens along t, y and x.

    Raises:
        ValueError: when a side is not a multiple of its patch.
    """
    if any(size % step for size, step in zip(shape, patch, strict=True)):
        raise ValueError(f"Latents of {' x '.join(map(str, shape))} do not divide into patches of {patch}.")
    return shape[0] // patch[0], shape[1] // patch[1], shape[2] // patch[2]


def grid_positions(grid: tuple[int, int, int], out: Int32[np.ndarray, "L 3"] | None = None) -> Int32[np.ndarray, "L 3"]:
    """Return (t, y, x) of every token of a clip, in raster order; written to `out` if that is given."""
    if out is None:
        out = np.empty((math.prod(grid), 3), np.int32)
    for dim, index in enumerate(np.indices(grid, np.int32, sparse=True)):
        out.reshape(*grid, 3)[..., dim] = index
    return out
