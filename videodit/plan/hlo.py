"""A parser of XLA's optimized HLO: computations, their instructions, trip counts and groups of devices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

BITS = {"pred": 8, "s4": 4, "u4": 4, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "c64": 64}
BITS |= {f"{kind}{bits}": bits for kind in "suf" for bits in (8, 16, 32, 64)}

HBM, HOST = 0, 5  # memory spaces, by XLA's numbers; all others are on the chip

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")


class Shape(NamedTuple):
    """An array's type and dimensions, and the memory space that it is in."""

    dtype: str
    dims: tuple[int, ...]
    memory: int

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return -(-BITS.get(self.dtype, 0) * self.size // 8)


class Instruction(NamedTuple):
    """A line of a computation: the shapes of its results, its operation, its operands by name, and its attributes."""

    name: str
    shapes: tuple[Shape, ...]
    op: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclass
class Computation:
    """A computation's instructions, in the order of the text."""

    instructions: list[Instruction] = field(default_factory=list)

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {instruction.name: instruction for instruction in self.instructions}


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Return the computations of a module by name, and the name of its entry computation."""
    computations: dict[str, Computation] = {}
    entry, current, names = "", None, {}
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current, names = computations.setdefault(head[2], Computation()), {}
            entry = head[2] if head[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            instruction = _parse_instruction(*match.groups())
            for each in (*_implicit_elements(instruction, names), instruction):
                current.instructions.append(each)
                names[each.name] = each
        elif line.startswith("}"):
            current = None
    return computations, entry


def _parse_instruction(root: str | None, name: str, rest: str) -> Instruction:
    types, rest = _split_types(rest)
    op, _, rest = rest.partition("(")
    arguments, attributes = _split_at_closing(rest)
    operands = tuple(re.findall(r"%([\w.\-]+(?:#\d+)?)", arguments))
    if op == "constant":
        attributes = arguments
    shapes = tuple(_parse_shape(*array) for array in _ARRAY.findall(types))
    return Instruction(name, shapes, op, operands, attributes, bool(root))


def _implicit_elements(instruction: Instruction, names: Mapping[str, Instruction]) -> list[Instruction]:
    """Return the `get-tuple-element` instructions that newer XLA omits: those of operands like `%tuple#1`."""
    elements = []
    for name in dict.fromkeys(instruction.operands):
        source, _, index = name.partition("#")
        if index and name not in names:
            shapes = (names[source].shapes[int(index)],)
            elements.append(Instruction(name, shapes, "get-tuple-element", (source,), f"index={index}", False))
    return elements


def _split_types(rest: str) -> tuple[str, str]:
    if not rest.startswith("("):
        types, _, rest = rest.partition(" ")
        return types, rest
    types, rest = _split_at_closing(rest[1:])
    return types, rest.lstrip()


def _split_at_closing(text: str) -> tuple[str, str]:
    """Return the text before and after the parenthesis that closes one opened before `text`."""
    depth = 1
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:index], text[index + 1 :]
    return text, ""


def _parse_shape(dtype: str, dims: str, layout: str) -> Shape:
    if dtype not in BITS and dtype not in ("token", "opaque"):
        raise ValueError(f"the size of XLA's type {dtype} is unknown: add it to videodit.plan.hlo.BITS")
    memory = re.search(r"S\((\d+)\)", layout)
    return Shape(dtype, tuple(int(d) for d in dims.split(",") if d), int(memory[1]) if memory else HBM)


def get_called(attributes: str, key: str) -> list[str]:
    """Return the names of the computations that an instruction has under a key, like `calls`."""
    match = re.search(rf"{key}=(?:\{{([^}}]*)\}}|(%?[\w.\-]+))", attributes)
    return [] if match is None else re.findall(r"%?([\w.\-]+)", match[1] or match[2])


def trip_count(condition: Computation, computations: Mapping[str, Computation]) -> int:
    """Return the trip count of a loop whose variable counts up from zero by one, as in all of our loops (`lax.scan`).

    Raises:
        ValueError: if the limit of the loop is not a constant of the program.
    """
    compare = next((i for i in condition.instructions if i.op == "compare"), None)
    limits = [i for i in condition.instructions if i.op == "constant" and i.shapes[0].dtype in ("s32", "u32", "s64")]
    if compare is None:  # it is in a fusion
        for instruction in condition.instructions:
            for name in get_called(instruction.attributes, "calls") if instruction.op == "fusion" else []:
                compare = compare or next((i for i in computations[name].instructions if i.op == "compare"), None)
                limits += [i for i in computations[name].instructions if i.op == "constant"]
    if compare is None or "direction=LT" not in compare.attributes or len(limits) != 1:
        raise ValueError("the trip count of a loop is not a constant of the program, so its operations are unknown")
    return int(limits[0].attributes)


DeviceGroups = tuple[tuple[int, ...], ...]
"""Devices by their numbers in the program, in groups."""


def parse_groups(attributes: str) -> DeviceGroups:
    """Return the groups of devices of a collective; none if it has no groups, which means a single group of all."""
    if match := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return tuple(tuple(map(int, pair.split(","))) for pair in re.findall(r"\{(\d+,\d+)\}", match[1]))
    if match := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)*)\}", attributes):
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", match[1]))
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        return _iota_groups(int(match[1]), int(match[2]), parse_ints(match[3]), parse_ints(match[4] or ""))
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        return _mesh_groups(match[1], match[2])
    return ()


def parse_ints(text: str) -> list[int]:
    """Return comma-separated integers."""
    return [int(n) for n in text.split(",") if n]


def _iota_groups(groups: int, size: int, dims: list[int], order: list[int]) -> DeviceGroups:
    devices = np.arange(math.prod(dims)).reshape(dims)
    devices = devices.transpose(order) if order else devices
    return tuple(map(tuple, devices.reshape(groups, size).tolist()))


def _mesh_groups(mesh: str, axes: str) -> DeviceGroups:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    names = list(sizes)
    grouped = re.findall(r"'([^']+)'", axes)
    devices = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    order = [names.index(name) for name in (*(n for n in names if n not in grouped), *grouped)]
    group_size = math.prod(sizes[name] for name in grouped)
    return tuple(map(tuple, devices.transpose(order).reshape(-1, group_size).tolist()))
