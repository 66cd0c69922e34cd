"""Batch plans: which clips make which batch, decided from sizes alone, before any clip is read.

Clips come in one global sequence of positions (`mixture`). A plan is an iterator over batches that takes clips in
order, defers those that no batch has room for yet, and loses none; it ends where the sequence does. It does not depend
on how many processes serve its entries. Its state is plain JSON: the next position, and the deferred ones.
"""

from collections.abc import Callable, Iterator
from typing import Any

from videodit_data.reading.packing import Packing, first_fit_decreasing

Entry = tuple[int, ...]  # positions of the clips that share a batch entry; empty for padding


class BucketPlan(Iterator[list[Entry]]):
    """Batches of clips of one bucket each, as soon as there are enough of them.

    Args:
        bucket_of: returns the bucket's index of the clip at a position.
        batch_size: returns the number of clips in a batch of a bucket.
        length: number of positions; None is endless. At the end deferred clips come in batches with padding.
    """

    def __init__(self, bucket_of: Callable[[int], int], batch_size: Callable[[int], int], length: int | None = None):
        self._bucket_of, self._batch_size, self._length = bucket_of, batch_size, length
        self._next: int = 0
        self._deferred: dict[int, list[int]] = {}

    def __next__(self) -> list[Entry]:
        # A state of larger batches may hold several batches of this size.
        full = next((b for b, positions in self._deferred.items() if len(positions) >= self._batch_size(b)), None)
        while full is None and self._next != self._length:
            position, bucket = self._next, self._bucket_of(self._next)
            self._next += 1
            positions = self._deferred.setdefault(bucket, [])
            positions.append(position)
            full = bucket if len(positions) >= self._batch_size(bucket) else None
        if full is None and not self._deferred:
            raise StopIteration
        full = min(self._deferred) if full is None else full
        positions, size = self._deferred.pop(full), self._batch_size(full)
        if positions[size:]:
            self._deferred[full] = positions[size:]
        return [(position,) for position in positions[:size]] + [()] * (size - len(positions))

    def get_state(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {"next": self._next, "held": sorted(p for positions in self._deferred.values() for p in positions)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `get_state`."""
        self._next, self._deferred = state["next"], {}
        for position in state["held"]:
            self._deferred.setdefault(self._bucket_of(position), []).append(position)


class PackPlan(Iterator[list[Entry]]):
    """Batches of packed sequences, by first fit decreasing over the next clips.

    The clip that has waited longest goes first, so that none waits for ever.

    Args:
        tokens_of: returns the tokens of the clip at a position.
        batch_size: packed sequences of a batch.
        length: as in `BucketPlan`.
    """

    def __init__(self, tokens_of: Callable[[int], int], packing: Packing, batch_size: int, length: int | None = None):
        self._tokens_of, self._packing, self._batch_size, self._length = tokens_of, packing, batch_size, length
        self._next: int = 0
        self._deferred: list[int] = []

    def __next__(self) -> list[Entry]:
        packing = self._packing
        while len(self._deferred) < packing.look_ahead and self._next != self._length:
            self._deferred.append(self._next)
            self._next += 1
        if not self._deferred:
            raise StopIteration
        costs = [self._tokens_of(position) for position in self._deferred]
        packed = first_fit_decreasing(costs, self._batch_size, packing.length, packing.clips)
        entries = [tuple(self._deferred[item] for item in items) for items in packed]
        used = {position for entry in entries for position in entry}
        self._deferred = [position for position in self._deferred if position not in used]
        return entries

    def get_state(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {"next": self._next, "held": list(self._deferred)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `get_state`."""
        self._next, self._deferred = state["next"], list(state["held"])


Plan = BucketPlan | PackPlan
