"""Batches from the data iterator to the devices, the next one while a step runs."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Sharding

from videodit.train.batch import Batch, HostBatch, to_devices


@runtime_checkable
class ResumableIterator(Protocol):
    """An endless iterator of host batches that can report its position, as plain JSON, and resume there."""

    def __next__(self) -> HostBatch: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the devices, with the names of its clips.

    Attributes:
        iterator_state: the data iterator's position after this batch, plain JSON.
        epochs: passes over each data set so far, where the iterator reports them.
    """

    batch: Batch[jax.Array]
    clip_ids: tuple[str | tuple[str, ...], ...]
    captions: tuple[str | tuple[str, ...], ...]
    iterator_state: object
    epochs: Mapping[str, float]


class DevicePrefetcher:
    """Iterates over device batches; `prefetch` sends the next one while the devices are busy with this one.

    `state` is the data iterator's position after the last batch that was returned, not after the one in flight: what a
    checkpoint must hold. The data iterator is not closed here.
    """

    def __init__(self, host_batches: ResumableIterator, sharding: Sharding):
        self._host_batches, self._sharding = host_batches, sharding
        self._next: DeviceBatch | None = None
        self.state: object = copy.deepcopy(host_batches.get_state())

    def __iter__(self) -> Iterator[DeviceBatch]:
        return self

    def __next__(self) -> DeviceBatch:
        self.prefetch()
        current, self._next = self._next, None
        if current is None:
            raise StopIteration
        self.state = current.iterator_state
        return current

    def prefetch(self) -> None:
        """Send the next batch, if it is not sent yet: after a step is dispatched, whose time hides the transfer."""
        self._next = self._next or self._load()

    def _load(self) -> DeviceBatch | None:
        host = next(self._host_batches, None)  # type: ignore[call-overload]
        if host is None:
            return None
        batch, state = to_devices(host, self._sharding), copy.deepcopy(self._host_batches.get_state())
        return DeviceBatch(batch, host.clip_ids, host.captions, state, getattr(self._host_batches, "epochs", {}))
