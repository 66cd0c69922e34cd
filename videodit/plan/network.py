"""How long collectives take on the links of a machine: a torus of chips, and slices of it joined by DCN.

Every link carries what it is asked to at its full rate, and nothing waits: a lower bound, as rooflines are. Gathering
and scattering go round all sides of a group at once (jax-ml.github.io/scaling-book, "sharded matrices"); what goes from
one device to another takes the shortest way, one side of the torus after another, and the busiest link takes longest.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax

from videodit.parallel.chips import Chip
from videodit.plan.count import Collective

Pair = tuple[int, int]


class Place(NamedTuple):
    """Where a device is: slice, chip in the torus, and core of the chip."""

    slice: int
    chip: tuple[int, ...]
    core: int


class Span(NamedTuple):
    """How the chips of a group lie along a side: how many, how far one is from the next, whether they close a ring."""

    count: int
    stride: int
    ring: bool


@dataclass(frozen=True)
class Network:
    """The devices of a program, in its numbering, and the chip that they are or are parts of."""

    chip: Chip
    places: tuple[Place, ...]

    @classmethod
    def of(cls, chip: Chip, devices: Iterable[jax.Device]) -> "Network":
        """That of a mesh's TPUs, in the mesh's order."""
        places = (Place(getattr(d, "slice_index", 0) or 0, tuple(d.coords), d.core_on_chip) for d in devices)
        return cls(chip, tuple(places))

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Chips along each side of a slice."""
        return tuple(1 + max(at) for at in zip(*(place.chip for place in self.places), strict=True))

    @cached_property
    def rings(self) -> tuple[bool, ...]:
        """Which sides close to rings: of tori in the plane those of 16, in space all if each is a multiple of 4."""
        if self.chip.links == 4:
            return tuple(side == 16 for side in self.sides)
        return (all(side % 4 == 0 for side in self.sides),) * len(self.sides)

    def seconds(self, collective: Collective) -> float:
        """Of one run, all its groups at once."""
        kind, operand, result = collective.kind, float(collective.operand), float(collective.result)
        groups = collective.groups or (tuple(range(len(self.places))),)
        if kind == "collective-permute":
            return self._carry(groups, operand)
        if kind == "all-to-all":
            pairs = [(a, b) for group in groups for a in group for b in group if a != b]
            return self._carry(pairs, operand / len(groups[0]))
        share = {"all-gather": operand, "reduce-scatter": result, "all-reduce": operand / len(groups[0])}[kind]
        return (1 + (kind == "all-reduce")) * max(self._gather(group, share) for group in set(groups))

    def _gather(self, group: Sequence[int], share: float) -> float:
        """To bring everybody's share to everybody: first between slices, then chips, then cores."""
        places = [self.places[device] for device in group]
        slices, cores = len({place.slice for place in places}), len({place.core for place in places})
        chips = {place.chip for place in places if place.slice == places[0].slice}
        here = self.chip.devices
        seconds = (slices - 1) * share * here / self.chip.dcn_bandwidth
        seconds += (len(chips) - 1) * slices * share * here / self._bandwidth(chips)
        return seconds + (cores - 1) * slices * len(chips) * share / self.chip.core_bandwidth

    def _bandwidth(self, chips: set[tuple[int, ...]]) -> float:
        """Bytes a second that every chip of a group can take in from the others."""
        one = self.chip.link_bandwidth
        spans = self._spans(chips)
        if spans is None or len(chips) == 1:
            return one
        return one * sum((1 + span.ring) / span.stride for span in spans if span.count > 1)

    def _spans(self, chips: set[tuple[int, ...]]) -> list[Span] | None:
        """How a group lies in the torus, if it is a grid in it."""
        spans = []
        for values, side, closed in zip(zip(*chips, strict=True), self.sides, self.rings, strict=True):
            at = sorted(set(values))
            stride = (at[-1] - at[0]) // max(len(at) - 1, 1) or 1
            if at != list(range(at[0], at[-1] + 1, stride)):
                return None
            spans.append(Span(len(at), stride, closed and len(at) * stride == side))
        return spans if math.prod(span.count for span in spans) == len(chips) else None

    def _carry(self, pairs: Iterable[Pair], size: float) -> float:
        """To bring `size` bytes from the first to the second of every pair."""
        load: Counter[tuple] = Counter()
        for a, b in pairs:
            load.update(self._way(self.places[a], self.places[b]))
        rates = {"link": self.chip.link_bandwidth, "core": self.chip.core_bandwidth, "dcn": self.chip.dcn_bandwidth}
        return max((times * size / rates[kind] for (kind, *_), times in load.items()), default=0.0)

    def _way(self, start: Place, end: Place) -> Iterable[tuple]:
        """The links that are taken, each in one direction."""
        if start.slice != end.slice:
            yield "dcn", "out", start.slice, start.chip
            yield "dcn", "in", end.slice, end.chip
            return
        if start.core != end.core:
            yield "core", start.slice, start.chip, start.core
        at = list(start.chip)
        for axis, (side, closed) in enumerate(zip(self.sides, self.rings, strict=True)):
            distance = end.chip[axis] - at[axis]
            if closed and 2 * abs(distance) > side:
                distance -= side if distance > 0 else -side
            elif closed and 2 * abs(distance) == side:  # as far either way: half of them go the other
                distance = side // 2 if at[axis] % 2 else -(side // 2)
            step = 1 if distance > 0 else -1
            for _ in range(abs(distance)):
                yield "link", start.slice, tuple(at), axis, step
                at[axis] = (at[axis] + step) % side
