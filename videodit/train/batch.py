"""A batch on the devices, made from the numpy arrays of the data iterator."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float

from videodit.models.pixels import to_float
from videodit.shapes import Video


@runtime_checkable
class HostBatch(Protocol):
    """What a loader yields: numpy arrays with the batch first, None for what it does not give, and plain strings.

    Beside these, `video` (uint8 [B, T, Y, X, 3], or None), or what packed rows have (`Batch`), and `text` where
    captions are given as embeddings.
    """

    latent_mean: Any  # [B, T, Y, X, C] of any float type, or None
    latent_logvar: Any
    text_ids: Any  # int32 [B, S], 0 is padding; None where embeddings are given
    text_mask: Any  # bool [B, S]
    fps: Any  # float32 [B]
    real: Any  # bool [B], False for rows that only fill up the batch
    clip_ids: tuple[Any, ...]  # "" for such
    captions: tuple[Any, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """A batch on the devices. Its leaves are arrays, or their shapes where nothing is allocated.

    video: uint8 [B, T, Y, X, 3], or None when latents are given; latent_mean, latent_logvar: [B, T, Y, X, C] in any
        float type, the other way round. `pixels` and `posterior` are these as the models take them.
    text_ids: `shapes.TextIds`, text_mask: `shapes.TextMask`, fps: `shapes.PerClip`.
    text: `shapes.Text` in any float type, what a text encoder makes of the captions, in place of their ids; or None.
    real: bool [B], False for rows that only fill up the batch and count for nothing.
    segments, positions: of rows that several clips share; None where a row is a clip. Latents are `shapes.Patches`
        then, text_ids and text_mask [B, K, S], text [B, K, S, E], fps and real [B, K].
    """

    video: Any
    latent_mean: Any
    latent_logvar: Any
    text_ids: Any
    text_mask: Any
    fps: Any
    real: Any
    segments: Any = None
    positions: Any = None
    text: Any = None

    @property
    def pixels(self) -> Video:
        """The frames in [-1, 1], float32."""
        return to_float(self.video)

    @property
    def posterior(self) -> tuple[Float[Array, "B ..."], Float[Array, "B ..."]]:
        """Mean and log-variance of the posterior of the latents, float32."""
        return self.latent_mean.astype(jnp.float32), self.latent_logvar.astype(jnp.float32)

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return self.real.shape[0]


def local_indices(batch_size: int, sharding: Sharding, process: int | None = None) -> tuple[int, ...]:
    """Return the indices of a batch that the devices of a process hold: what its data iterator has to serve.

    Processes whose devices share clips serve the same indices.

    Args:
        process: this one if None.
    """
    process = jax.process_index() if process is None else process
    slices = sharding.devices_indices_map((batch_size,))
    ranges = [range(batch_size)[at] for device, (at,) in slices.items() if device.process_index == process]
    return tuple(sorted(set().union(*ranges)))


def to_devices(host: HostBatch, sharding: Sharding) -> Batch:
    """Return a batch as global arrays, sharded; this process has the `local_indices` of it."""
    # As many rows as there are devices always divide.
    devices = len(sharding.device_set)
    size = len(host.clip_ids) * devices // len(local_indices(devices, sharding))
    positions = {index: position for position, index in enumerate(local_indices(size, sharding))}
    arrays = {field.name: getattr(host, field.name, None) for field in fields(Batch)}
    return Batch(**{name: x if x is None else _to_global(x, size, positions, sharding) for name, x in arrays.items()})


def _to_global(array: np.ndarray, size: int, positions: Mapping[int, int], sharding: Sharding) -> jax.Array:
    """Return the global array of `size` rows, of which `array` has those whose positions in it are given."""

    def shard(index: tuple[slice, ...]) -> np.ndarray:
        rows = range(size)[index[0]]
        return array[positions[rows[0]] : positions[rows[-1]] + 1]

    return jax.make_array_from_callback((size, *array.shape[1:]), sharding, shard)
