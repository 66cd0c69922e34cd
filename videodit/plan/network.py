"""The time of collectives on a torus of chips, and on slices of chips joined by DCN.

Times are lower bounds: every link runs at its full rate without latency. Gather and scatter use the links of all torus
axes of a group at once (jax-ml.github.io/scaling-book, "sharded matrices"). Point-to-point transfers take the shortest
route, one torus axis after another, and the busiest link determines the time.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax

from videodit.parallel.chips import Chip
from videodit.plan.hlo_counts import Collective

Pair = tuple[int, int]
Link = tuple  # its kind, "link", "core" or "dcn", and what identifies it


class DeviceCoords(NamedTuple):
    """The coordinates of a device: slice, chip in the torus, and core of the chip."""

    slice: int
    chip: tuple[int, ...]
    core: int


class Span(NamedTuple):
    """The chips of a group along a torus axis: how many, how far apart, and whether they form a ring."""

    count: int
    stride: int
    ring: bool


@dataclass(frozen=True)
class Network:
    """The devices of a program in its numbering, and their chip."""

    chip: Chip
    coords: tuple[DeviceCoords, ...]

    @classmethod
    def from_devices(cls, chip: Chip, devices: Iterable[jax.Device]) -> "Network":
        """Return the network of a mesh's TPUs, in the order of the mesh."""
        coords = (DeviceCoords(getattr(d, "slice_index", 0) or 0, tuple(d.coords), d.core_on_chip) for d in devices)
        return cls(chip, tuple(coords))

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """The number of chips of a slice along each torus axis."""
        return tuple(1 + max(values) for values in zip(*(device.chip for device in self.coords), strict=True))

    @cached_property
    def rings(self) -> tuple[bool, ...]:
        """Which torus axes form rings: in 2D those of 16 chips, in 3D all if each is a multiple of 4."""
        if self.chip.links == 4:
            return tuple(side == 16 for side in self.sides)
        return (all(side % 4 == 0 for side in self.sides),) * len(self.sides)

    def seconds(self, collective: Collective) -> float:
        """Return the seconds of one execution, with all groups at once."""
        kind, operand, result = collective.kind, float(collective.operand), float(collective.result)
        groups = collective.groups or (tuple(range(len(self.coords))),)
        if kind == "collective-permute":
            return self._transfer_seconds(groups, operand)
        if kind == "all-to-all":
            pairs = [(a, b) for group in groups for a in group for b in group if a != b]
            return self._transfer_seconds(pairs, operand / len(groups[0]))
        shard = {"all-gather": operand, "reduce-scatter": result, "all-reduce": operand / len(groups[0])}[kind]
        return (1 + (kind == "all-reduce")) * max(self._gather_seconds(group, shard) for group in set(groups))

    def _gather_seconds(self, group: Sequence[int], shard: float) -> float:
        """Return the seconds of gathering shards of a size in bytes: first between slices, then chips, then cores."""
        coords = [self.coords[device] for device in group]
        slices, cores = len({device.slice for device in coords}), len({device.core for device in coords})
        chips = {device.chip for device in coords if device.slice == coords[0].slice}
        per_chip = shard * self.chip.devices
        seconds = (slices - 1) * per_chip / self.chip.dcn_bandwidth
        seconds += (len(chips) - 1) * slices * per_chip / self._group_bandwidth(chips)
        return seconds + (cores - 1) * slices * len(chips) * shard / self.chip.core_bandwidth

    def _group_bandwidth(self, chips: set[tuple[int, ...]]) -> float:
        """Return the bytes per second that every chip of a group can receive from the others."""
        link = self.chip.link_bandwidth
        spans = self._find_spans(chips)
        if spans is None or len(chips) == 1:
            return link
        return link * sum((1 + span.ring) / span.stride for span in spans if span.count > 1)

    def _find_spans(self, chips: set[tuple[int, ...]]) -> list[Span] | None:
        """Return the span of a group along each torus axis; None if it is not a regular grid."""
        spans = []
        for coordinates, side, ring in zip(zip(*chips, strict=True), self.sides, self.rings, strict=True):
            values = sorted(set(coordinates))
            stride = (values[-1] - values[0]) // max(len(values) - 1, 1) or 1
            if values != list(range(values[0], values[-1] + 1, stride)):
                return None
            spans.append(Span(len(values), stride, ring and len(values) * stride == side))
        return spans if math.prod(span.count for span in spans) == len(chips) else None

    def _transfer_seconds(self, pairs: Iterable[Pair], size: float) -> float:
        """Return the seconds of sending `size` bytes from the first to the second device of every pair."""
        load: Counter[Link] = Counter()
        for a, b in pairs:
            load.update(self._route(self.coords[a], self.coords[b]))
        rates = {"link": self.chip.link_bandwidth, "core": self.chip.core_bandwidth, "dcn": self.chip.dcn_bandwidth}
        return max((transfers * size / rates[kind] for (kind, *_), transfers in load.items()), default=0.0)

    def _route(self, start: DeviceCoords, end: DeviceCoords) -> Iterable[Link]:
        """Yield the links between two devices, each in one direction."""
        if start.slice != end.slice:
            yield "dcn", "out", start.slice, start.chip
            yield "dcn", "in", end.slice, end.chip
            return
        if start.core != end.core:
            yield "core", start.slice, start.chip, start.core
        chip = list(start.chip)
        for axis, (side, ring) in enumerate(zip(self.sides, self.rings, strict=True)):
            distance = end.chip[axis] - chip[axis]
            if ring and 2 * abs(distance) > side:
                distance -= side if distance > 0 else -side
            elif ring and 2 * abs(distance) == side:  # equally far both ways: half of the transfers go each way
                distance = side // 2 if chip[axis] % 2 else -(side // 2)
            step = 1 if distance > 0 else -1
            for _ in range(abs(distance)):
                yield "link", start.slice, tuple(chip), axis, step
                chip[axis] = (chip[axis] + step) % side
