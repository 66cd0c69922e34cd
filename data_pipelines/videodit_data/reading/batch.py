"""The contract between the data room and everything above it: one batch of numpy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped, UInt8


class ArraySpec(NamedTuple):
    """Shape and dtype of one array of a batch, known before any clip is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


BatchSpec = Mapping[str, ArraySpec]


@dataclass(frozen=True)
class Batch:
    """One batch of captioned clips, as pixels or as latents.

    B clips, T = 1 + 4k frames, Y and X pixels, t, y and x latent positions of C channels, S text tokens.
    A row with an empty clip id is padding: its arrays are zero and it counts for nothing (`real` says which rows do).
    """

    video: UInt8[np.ndarray, "B T Y X 3"] | None  # None when latents are given
    latent_mean: Shaped[np.ndarray, "B t y x C"] | None  # float16 or bfloat16, as stored
    latent_logvar: Shaped[np.ndarray, "B t y x C"] | None
    text_ids: Int32[np.ndarray, "B S"] | None  # 0 is padding; None when embeddings are given
    text_mask: Bool[np.ndarray, "B S"]
    fps: Float32[np.ndarray, " B"]  # frames a second of the clip as served
    clip_ids: tuple[str, ...]  # host only
    captions: tuple[str, ...]  # host only: the chosen caption, "" when dropped
    text: Shaped[np.ndarray, "B S E"] | None = None  # float16 or bfloat16, as stored, zeros where a caption has ended

    @property
    def real(self) -> Bool[np.ndarray, " B"]:
        """True for rows that hold a clip, False for padding."""
        return np.array([clip_id != "" for clip_id in self.clip_ids], dtype=bool)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that go to the devices, by field name; host-only and absent fields are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True)
class PackedBatch:
    """One batch of rows of tokens, in each of which several clips of latents are packed.

    B rows of L tokens with P features each; K clips a row at most, of S text tokens. Clip k of a row is segment k + 1.
    One with an empty id is none, and its text and rate are zero, as are tokens of no clip.
    """

    latent_mean: Shaped[np.ndarray, "B L P"]  # float16 or bfloat16, as stored
    latent_logvar: Shaped[np.ndarray, "B L P"]
    positions: Int32[np.ndarray, "B L 3"]  # (t, y, x) of a token in its clip, in tokens
    segments: Int32[np.ndarray, "B L"]  # 0 is padding
    text_ids: Int32[np.ndarray, "B K S"] | None  # None when embeddings are given
    text_mask: Bool[np.ndarray, "B K S"]
    fps: Float32[np.ndarray, "B K"]
    clip_ids: tuple[tuple[str, ...], ...]  # host only
    captions: tuple[tuple[str, ...], ...]  # host only
    text: Shaped[np.ndarray, "B K S E"] | None = None  # float16 or bfloat16, as stored

    @property
    def real(self) -> Bool[np.ndarray, "B K"]:
        """True where there is a clip."""
        return np.array([[clip_id != "" for clip_id in row] for row in self.clip_ids], dtype=bool)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that go to the devices, by field name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
