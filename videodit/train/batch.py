"""From the loader's numpy batches to arrays over the mesh, the next while a step runs."""

import copy
from collections.abc import Iterator, Mapping
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


@runtime_checkable
class Loader(Protocol):
    """An endless iterator of batches that can say where it is, as plain JSON, and go back there."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """A batch on the devices. Its leaves are arrays, or their shapes where nothing is allocated.

    video: uint8 [B, T, Y, X, 3], or None when latents are given; latent_mean, latent_logvar: [B, T, Y, X, C] in any
        float type, the other way round. `pixels` and `moments` are these as the models take them.
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
    def moments(self) -> tuple[Float[Array, "B ..."], Float[Array, "B ..."]]:
        """Mean and log-variance of the latents, float32."""
        return self.latent_mean.astype(jnp.float32), self.latent_logvar.astype(jnp.float32)

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return self.real.shape[0]


@dataclass(frozen=True)
class Fed:
    """A batch on the devices, what people call its clips, and where the loader stood after it."""

    batch: Batch
    clip_ids: tuple[Any, ...]
    captions: tuple[Any, ...]
    loader_state: Any
    epochs: Mapping[str, float]  # how often each data set has been gone through, where the loader tells


class Feed:
    """Iterates over a loader; `prefetch` sends the next batch to the devices while they are busy with this one.

    `state` is the loader's position after the last batch handed out, not after the one in flight: what a checkpoint
    must hold. Nothing here closes the loader.
    """

    def __init__(self, loader: Loader, sharding: Sharding):
        self._loader = loader
        self._sharding = sharding
        self._ahead: Fed | None = None
        self.state: Any = copy.deepcopy(loader.get_state())

    def __iter__(self) -> Iterator[Fed]:
        return self

    def __next__(self) -> Fed:
        self.prefetch()
        current, self._ahead = self._ahead, None
        if current is None:
            raise StopIteration
        self.state = current.loader_state
        return current

    def prefetch(self) -> None:
        """Send the next batch on its way, if it is not yet: after a step is dispatched, for its time to hide this."""
        self._ahead = self._ahead or self._load()

    def _load(self) -> Fed | None:
        host = next(self._loader, None)  # type: ignore[call-overload]
        if host is None:
            return None
        batch, state = to_devices(host, self._sharding), copy.deepcopy(self._loader.get_state())
        return Fed(batch, host.clip_ids, host.captions, state, getattr(self._loader, "epochs", {}))


def rows_of(batch_size: int, sharding: Sharding, process: int | None = None) -> tuple[int, ...]:
    """The rows of a batch that the devices of a process hold, this one by default: what its loader has to serve.

    Processes whose devices share clips serve the same rows.
    """
    process = jax.process_index() if process is None else process
    places = sharding.devices_indices_map((batch_size,))
    held = [range(batch_size)[at] for device, (at,) in places.items() if device.process_index == process]
    return tuple(sorted(set().union(*held)))


def to_devices(host: HostBatch, sharding: Sharding) -> Batch:
    """A batch as global arrays laid out as `sharding` says; this process has the `rows_of` it."""
    # As many rows as there are devices always divide.
    devices = len(sharding.device_set)
    size = len(host.clip_ids) * devices // len(rows_of(devices, sharding))
    local = {row: place for place, row in enumerate(rows_of(size, sharding))}
    arrays = {field.name: getattr(host, field.name, None) for field in fields(Batch)}
    return Batch(**{name: x if x is None else _placed(x, size, local, sharding) for name, x in arrays.items()})


def _placed(array: np.ndarray, size: int, local: Mapping[int, int], sharding: Sharding) -> jax.Array:
    """The global array of `size` rows, of which `array` has those that `local` names, each in its place there."""

    def part(index: tuple[slice, ...]) -> np.ndarray:
        rows = range(size)[index[0]]
        return array[local[rows[0]] : local[rows[-1]] + 1]

    return jax.make_array_from_callback((size, *array.shape[1:]), sharding, part)
