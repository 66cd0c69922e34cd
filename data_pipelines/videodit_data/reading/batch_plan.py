"""Which clips make which batch, decided from sizes alone: before, and apart from, reading any of them.

Clips come in one global sequence. A plan is an iterator over batches that takes them in order, holds back those that no
batch has room for yet, and loses none; it ends where the sequence does. It does not depend on how many processes serve
its rows. Its state is plain JSON: where the sequence goes on, and what is held back.
"""

from collections.abc import Callable, Iterator
from typing import Any

from videodit_data.reading.packing import Packing, first_fit_decreasing

Row = tuple[int, ...]  # places in the sequence of the clips that share a row; none in a row that only fills up


class BucketPlan(Iterator[list[Row]]):
    """Batches of clips of one shape each, as soon as there are enough of them.

    Args:
        bucket: of the clip at a place of the sequence. size: clips of a batch of a bucket.
        length: of the sequence; None is endless. At its end what is held back comes in batches that are filled up.
    """

    def __init__(self, bucket: Callable[[int], int], size: Callable[[int], int], length: int | None = None):
        self._bucket, self._size, self._length = bucket, size, length
        self._next, self._held = 0, {}

    def __next__(self) -> list[Row]:
        # A state of larger batches may hold more than one of ours.
        full = next((bucket for bucket, held in self._held.items() if len(held) >= self._size(bucket)), None)
        while full is None and self._next != self._length:
            place, bucket = self._next, self._bucket(self._next)
            self._next += 1
            held = self._held.setdefault(bucket, [])
            held.append(place)
            full = bucket if len(held) >= self._size(bucket) else None
        if full is None and not self._held:
            raise StopIteration
        full = min(self._held) if full is None else full
        held, size = self._held.pop(full), self._size(full)
        if held[size:]:
            self._held[full] = held[size:]
        return [(place,) for place in held[:size]] + [()] * (size - len(held))

    def get_state(self) -> dict[str, Any]:
        return {"next": self._next, "held": sorted(place for held in self._held.values() for place in held)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._next, self._held = state["next"], {}
        for place in state["held"]:
            self._held.setdefault(self._bucket(place), []).append(place)


class PackPlan(Iterator[list[Row]]):
    """Batches of rows that several clips share, by first fit decreasing over the clips in sight.

    The clip that has waited longest goes first, so that none waits for ever.

    Args:
        cost: tokens of the clip at a place of the sequence.
        rows: of a batch. length: as in `BucketPlan`.
    """

    def __init__(self, cost: Callable[[int], int], packing: Packing, rows: int, length: int | None = None):
        self._cost, self._packing, self._rows, self._length = cost, packing, rows, length
        self._next, self._held = 0, []

    def __next__(self) -> list[Row]:
        packing = self._packing
        while len(self._held) < packing.look_ahead and self._next != self._length:
            self._held.append(self._next)
            self._next += 1
        if not self._held:
            raise StopIteration
        costs = [self._cost(place) for place in self._held]
        placed = first_fit_decreasing(costs, self._rows, packing.length, packing.clips)
        rows = [tuple(self._held[item] for item in row) for row in placed]
        taken = {place for row in rows for place in row}
        self._held = [place for place in self._held if place not in taken]
        return rows

    def get_state(self) -> dict[str, Any]:
        return {"next": self._next, "held": list(self._held)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._next, self._held = state["next"], list(state["held"])


Plan = BucketPlan | PackPlan
