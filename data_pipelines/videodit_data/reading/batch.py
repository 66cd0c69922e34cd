"""The batch: one class for arrays of NumPy on the host and of JAX on the devices, and for shapes in the planner."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Shaped, UInt8

ArrayT = TypeVar("ArrayT")  # np.ndarray, jax.Array or jax.ShapeDtypeStruct


class ArraySpec(NamedTuple):
    """Shape and dtype of one array of a batch, known before any clip is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True, repr=False, eq=False)
class Batch(Generic[ArrayT]):
    """A batch of captioned clips: one clip per batch entry, or several in a packed sequence.

    B batch entries, T = 1 + 4k frames, Y and X pixels; t, y and x latent positions of C channels; packed sequences of
    L tokens with P features each; S text tokens of E features. K is the number of clips of a packed sequence: arrays
    have that dimension only there. Clip k of a packed sequence is segment k + 1.

    Attributes:
        video: bytes, or floats in [-1, 1]; None when latents are given.
        latent_mean, latent_logvar: posterior of the autoencoder, as stored; None when pixels are given.
        text_ids: token ids, 0 is padding; None when embeddings are given.
        text_mask: True for text tokens that count.
        fps: frames per second of each clip.
        valid: False for batch entries (clips of packed sequences) that are padding and count for nothing.
        segments: clip of each token of a packed sequence, 0 for padding; None where nothing is packed.
        positions: (t, y, x) of each token in its clip, in tokens; None where nothing is packed.
        text: text embeddings, zeros where a caption has ended; None when ids are given.
        conditions: further inputs by name (`reading.conditions`), one array per name.
    """

    video: UInt8[ArrayT, "B T Y X 3"] | Float[ArrayT, "B T Y X 3"] | None
    latent_mean: Float[ArrayT, "B t y x C"] | Float[ArrayT, "B L P"] | None
    latent_logvar: Float[ArrayT, "B t y x C"] | Float[ArrayT, "B L P"] | None
    text_ids: Int32[ArrayT, "B *K S"] | None
    text_mask: Bool[ArrayT, "B *K S"]
    fps: Float32[ArrayT, "B *K"]
    valid: Bool[ArrayT, "B *K"]
    segments: Int32[ArrayT, "B L"] | None = None
    positions: Int32[ArrayT, "B L 3"] | None = None
    text: Float[ArrayT, "B *K S E"] | None = None
    conditions: Mapping[str, Shaped[ArrayT, "B ..."]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the number of batch entries."""
        return self.valid.shape[0]

    @property
    def posterior(self) -> tuple[Float32[ArrayT, "..."], Float32[ArrayT, "..."]]:
        """Return mean and log-variance of the latents as float32."""
        return self.latent_mean.astype(np.float32), self.latent_logvar.astype(np.float32)

    def arrays(self) -> dict[str, ArrayT]:
        """Return the arrays by name, those of `conditions` as `conditions/NAME`; without fields that are None."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "conditions"}
        values |= {f"conditions/{name}": value for name, value in self.conditions.items()}
        return {name: value for name, value in values.items() if value is not None}

    def __repr__(self) -> str:
        return "\n".join([type(self).__name__, *(f"  {name}: {_describe(x)}" for name, x in self.arrays().items())])


@dataclass(frozen=True, repr=False, eq=False)
class HostBatch:
    """A batch in NumPy, and what stays on the host: ids and captions of its clips.

    Attributes:
        arrays: what goes to the devices.
        clip_ids: one per batch entry, "" for padding; for packed sequences a tuple of K each.
        captions: the chosen captions, "" where dropped; nested alike.
    """

    arrays: Batch[np.ndarray]
    clip_ids: tuple[str, ...] | tuple[tuple[str, ...], ...]
    captions: tuple[str, ...] | tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        lines = [f"  {name}: {value!r}" for name in ("clip_ids", "captions") for value in [getattr(self, name)]]
        return "\n".join([type(self).__name__, *repr(self.arrays).splitlines()[1:], *lines])


def _describe(value: object) -> str:
    """Return dtype and shape of an array; the repr of what stands in for one, such as a sharding."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return repr(value)
    return f"{value.dtype} [{', '.join(map(str, value.shape))}]"
