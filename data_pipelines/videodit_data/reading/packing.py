"""Clips of different size and length in rows of one length, so that one compiled step serves all of them.

As in NaViT (Dehghani et al. 2023, arXiv:2307.06304): a row holds the tokens of several clips, each token knowing its
clip (`segments`) and its place there (`positions`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Shaped

from videodit_data.reading.buckets import Bucket, Buckets, Token

TOO_LONG = "longer than a row"


@dataclass(frozen=True)
class Packing:
    """Rows of packed latents.

    Attributes:
        length: tokens of a row.
        clips: of a row at most; the text of a row is that of so many captions.
        look_ahead: clips that a batch's rows are filled from.
        patch: latent positions (t, y, x) of a token.
        stride: frames and pixels of a latent position, as the autoencoder has them.
        buckets: shapes that videos would be coded in, to plan for those (`bucket_stats`).
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
    def token(self) -> Token:
        """What a token stands for."""
        return Token(self.stride[0] * self.patch[0], self.stride[1] * self.patch[1])

    def choose(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """The shape that a video would be coded in, or why there is none."""
        found = self.buckets.choose(frames, fps, height, width)
        return found if isinstance(found, str) else self._fitting(found)

    def choose_coded(self, frames: int, fps: float, height: int, width: int) -> Bucket | str:
        """The shape that latents were made in, if a row holds it."""
        return self._fitting(Bucket(frames, height, width))

    def _fitting(self, bucket: Bucket) -> Bucket | str:
        fits = self.token.count(bucket.frames, bucket.height, bucket.width) <= self.length
        return bucket if fits else TOO_LONG


def first_fit_decreasing(costs: Sequence[int], rows: int, length: int, most: int, urgent: int = 0) -> list[list[int]]:
    """Which items go to which row: the largest first, each to the first row that has room for it.

    Item `urgent` goes first, whatever its size. Equal items go in order; what fits nowhere is left out. In each row the
    items are in order.

    Args:
        costs: of the items; `rows` rows hold `length` of it each, and `most` items.

    Raises:
        ValueError: for an item that is larger than a row.
    """
    order = sorted(range(len(costs)), key=lambda item: (item != urgent, -costs[item], item))
    if order and max(costs) > length:
        raise ValueError(f"A clip of {max(costs)} tokens does not fit a row of {length}.")
    placed: list[list[int]] = [[] for _ in range(rows)]
    room = [length] * rows
    smallest = min(costs, default=0)
    for item in order:
        row = next((r for r in range(rows) if room[r] >= costs[item] and len(placed[r]) < most), None)
        if row is not None:
            placed[row].append(item)
            room[row] -= costs[item]
        elif max(room) < smallest:
            break
    return [sorted(row) for row in placed]


def patchify(
    latent: Shaped[np.ndarray, "t y x C"],
    patch: tuple[int, int, int],
    out: Shaped[np.ndarray, "L P"] | None = None,
) -> Shaped[np.ndarray, "L P"]:
    """Patches in raster order (t, y, x), the features of each in the order (t, y, x, channel).

    Written to `out`, of whole rows, if that is given. ValueError when a side is not a multiple of its patch.
    """
    (t, y, x), (pt, py, px), C = token_grid(latent.shape[:3], patch), patch, latent.shape[3]
    if out is None:
        out = np.empty((t * y * x, pt * py * px * C), latent.dtype)
    assert out.dtype == latent.dtype, f"{latent.dtype} does not go into {out.dtype}"
    # A patch's rows lie side by side in both, and are copied as one number each: a third of the time.
    row = np.dtype((np.void, px * C * latent.itemsize))
    rows = np.ascontiguousarray(latent).reshape(t, pt, y, py, x, px * C).view(row)
    out.reshape(t, y, x, pt, py, px * C).view(row)[...] = rows.transpose(0, 2, 4, 1, 3, 5)
    return out


def token_grid(shape: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """Tokens along t, y and x. ValueError when a side is not a multiple of its patch."""
    if any(size % step for size, step in zip(shape, patch, strict=True)):
        raise ValueError(f"Latents of {' x '.join(map(str, shape))} do not divide into patches of {patch}.")
    return shape[0] // patch[0], shape[1] // patch[1], shape[2] // patch[2]


def grid_positions(grid: tuple[int, int, int], out: Int32[np.ndarray, "L 3"] | None = None) -> Int32[np.ndarray, "L 3"]:
    """(t, y, x) of every token of a clip, in raster order; written to `out` if that is given."""
    if out is None:
        out = np.empty((math.prod(grid), 3), np.int32)
    for dim, index in enumerate(np.indices(grid, np.int32, sparse=True)):
        out.reshape(*grid, 3)[..., dim] = index
    return out
