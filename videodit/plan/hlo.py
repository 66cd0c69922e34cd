"""XLA's optimised HLO, read from its text: computations, their instructions, trip counts and groups of devices."""

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

HBM, HOST = 0, 5  # memories, by XLA's numbers; others are on the chip

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")


class Shape(NamedTuple):
    """One array, and the memory that it lies in."""

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
    """A line of a computation: its results' shapes, operation, operands by name, and whatever else it says."""

    name: str
    shapes: tuple[Shape, ...]
    op: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclass
class Computation:
    """Instructions in the order in which they are written."""

    instructions: list[Instruction] = field(default_factory=list)

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {instruction.name: instruction for instruction in self.instructions}


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module, and the name of its entry."""
    computations: dict[str, Computation] = {}
    entry, current, names = "", None, {}
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current, names = computations.setdefault(head[2], Computation()), {}
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(*found.groups())
            for made in (*_elements(instruction, names), instruction):
                current.instructions.append(made)
                names[made.name] = made
        elif line.startswith("}"):
            current = None
    return computations, entry


def _instruction(root: str | None, name: str, rest: str) -> Instruction:
    types, rest = _split_types(rest)
    op, _, rest = rest.partition("(")
    inside, attributes = _matching(rest)
    operands = tuple(re.findall(r"%([\w.\-]+(?:#\d+)?)", inside))
    if op == "constant":
        attributes = inside
    shapes = tuple(_shape(*array) for array in _ARRAY.findall(types))
    return Instruction(name, shapes, op, operands, attributes, bool(root))


def _elements(instruction: Instruction, names: Mapping[str, Instruction]) -> list[Instruction]:
    """What newer XLA leaves out: the instructions that take `%tuple#1` from its tuple."""
    made = []
    for name in dict.fromkeys(instruction.operands):
        of, _, index = name.partition("#")
        if index and name not in names:
            shapes = (names[of].shapes[int(index)],)
            made.append(Instruction(name, shapes, "get-tuple-element", (of,), f"index={index}", False))
    return made


def _split_types(rest: str) -> tuple[str, str]:
    if not rest.startswith("("):
        types, _, rest = rest.partition(" ")
        return types, rest
    types, rest = _matching(rest[1:])
    return types, rest.lstrip()


def _matching(text: str) -> tuple[str, str]:
    """What is before and after the parenthesis that closes one opened before `text`."""
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:at], text[at + 1 :]
    return text, ""


def _shape(dtype: str, dims: str, layout: str) -> Shape:
    if dtype not in BITS and dtype not in ("token", "opaque"):
        raise ValueError(f"the size of XLA's type {dtype} is not known: it belongs into videodit.plan.hlo.BITS")
    memory = re.search(r"S\((\d+)\)", layout)
    return Shape(dtype, tuple(int(d) for d in dims.split(",") if d), int(memory[1]) if memory else HBM)


def called(attributes: str, key: str) -> list[str]:
    """The computations that an instruction names under a key, like `calls`."""
    found = re.search(rf"{key}=(?:\{{([^}}]*)\}}|(%?[\w.\-]+))", attributes)
    return [] if found is None else re.findall(r"%?([\w.\-]+)", found[1] or found[2])


def trip_count(condition: Computation, computations: dict[str, Computation]) -> int:
    """How often a loop runs, if its variable goes up from zero by one, as that of every loop of ours (`lax.scan`) does.

    Raises:
        ValueError: when what the variable is compared with is not in the program.
    """
    compare = next((i for i in condition.instructions if i.op == "compare"), None)
    limits = [i for i in condition.instructions if i.op == "constant" and i.shapes[0].dtype in ("s32", "u32", "s64")]
    if compare is None:  # inside of a fusion
        for instruction in condition.instructions:
            for name in called(instruction.attributes, "calls") if instruction.op == "fusion" else []:
                compare = compare or next((i for i in computations[name].instructions if i.op == "compare"), None)
                limits += [i for i in computations[name].instructions if i.op == "constant"]
    if compare is None or "direction=LT" not in compare.attributes or len(limits) != 1:
        raise ValueError("a loop's trip count is not a constant of the program, so that what it does cannot be counted")
    return int(limits[0].attributes)


def groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """The devices that take part together, by their numbers in the program; all in one group if it does not say."""
    if found := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return tuple(tuple(map(int, pair.split(","))) for pair in re.findall(r"\{(\d+,\d+)\}", found[1]))
    if found := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)*)\}", attributes):
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", found[1]))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        return _iota_groups(int(found[1]), int(found[2]), ints(found[3]), ints(found[4] or ""))
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        return _mesh_groups(found[1], found[2])
    return ()


def ints(text: str) -> list[int]:
    """Numbers between commas."""
    return [int(n) for n in text.split(",") if n]


def _iota_groups(groups: int, size: int, dims: list[int], order: list[int]) -> tuple[tuple[int, ...], ...]:
    devices = np.arange(math.prod(dims)).reshape(dims)
    devices = devices.transpose(order) if order else devices
    return tuple(map(tuple, devices.reshape(groups, size).tolist()))


def _mesh_groups(mesh: str, axes: str) -> tuple[tuple[int, ...], ...]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    over = re.findall(r"'([^']+)'", axes)
    devices = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    kept = [at for at, name in enumerate(sizes) if name not in over]
    last = [list(sizes).index(name) for name in over]
    return tuple(map(tuple, devices.transpose(kept + last).reshape(-1, math.prod(sizes[n] for n in over)).tolist()))
