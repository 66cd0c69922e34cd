"""What a compiled program does, counted from XLA's optimised HLO with the trip counts of its loops.

`cost_analysis()` counts the body of a loop once; here a loop counts as often as it runs, and of the branches of a
conditional the one that does most. Counts are those of one device.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from videodit.plan.hlo import HBM, HOST, Computation, Instruction, Shape, called, groups, ints, parse, trip_count

COLLECTIVES = "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"
# What costs nothing, or is counted where it is called.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("while", "conditional", "call", "iota", "opt-barrier", "optimization-barrier"),
}

# What calls another computation, at once or beside what follows, also on a SparseCore.
CALLERS = "call", "async-start", "call-start", "custom-call", "custom-call-start"
CALLS = "to_apply", "calls", "called_computations"


class Collective(NamedTuple):
    """A collective within groups of devices, each of which gives `operand` bytes and gets `result` bytes."""

    kind: str
    groups: tuple[tuple[int, ...], ...]
    operand: int
    result: int


class Kernel(NamedTuple):
    """A Pallas kernel: what it is called, and the shapes of its operands."""

    name: str
    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]


@dataclass
class Counts:
    """What a program does in one run on one device, and how often.

    products: matrix products and convolutions outside of kernels, each (FLOPs, bytes moved with what is fused to it).
    other_bytes: moved by everything that is neither a product, a collective nor a kernel.
    host_bytes: moved to the host's memory or from there, by whatever.
    """

    products: Counter[tuple[int, int]] = field(default_factory=Counter)
    other_bytes: int = 0
    host_bytes: int = 0
    collectives: Counter[Collective] = field(default_factory=Counter)
    kernels: Counter[Kernel] = field(default_factory=Counter)

    @property
    def matmul_flops(self) -> int:
        """Of all products."""
        return sum(flops * times for (flops, _), times in self.products.items())

    def add(self, other: Counts, times: int = 1) -> None:
        """Adds what another has, so many times."""
        self.other_bytes += times * other.other_bytes
        self.host_bytes += times * other.host_bytes
        for mine, theirs in (
            (self.products, other.products),
            (self.collectives, other.collectives),
            (self.kernels, other.kernels),
        ):
            for key, count in theirs.items():
                mine[key] += times * count


def count(text: str) -> Counts:
    """What a module's entry does in one run.

    Args:
        text: of `compiled.as_text()`.
    """
    computations, entry = parse(text)
    done: dict[str, Counts] = {}

    def of(name: str) -> Counts:
        if name not in done:
            done[name] = Counts()  # no module calls itself
            for instruction in computations[name].instructions:
                _count(instruction, computations, computations[name], of, done[name])
        return done[name]

    return of(entry)


def _count(instruction: Instruction, computations, here: Computation, of, total: Counts) -> None:
    op, attributes = instruction.op, instruction.attributes
    if op == "while":
        times = trip_count(computations[called(attributes, "condition")[0]], computations)
        total.add(of(called(attributes, "body")[0]), times)
    elif op == "conditional":
        branches = called(attributes, "branch_computations")
        branches = branches or called(attributes, "true_computation") + called(attributes, "false_computation")
        total.add(max(map(of, branches), key=_weight))
    elif inside := [name for key in CALLS for name in called(attributes, key)] if op in CALLERS else []:
        for name in inside:
            total.add(of(name))
    elif op.removesuffix("-start") in COLLECTIVES:
        total.collectives[_collective(instruction, here)] += 1
    elif op == "custom-call" and '"tpu_custom_call"' in attributes:
        shapes = tuple(_taken(instruction, here))
        kernel = re.sub(r"[.\d]*$", "", re.sub(r"\.clone.*", "", instruction.name))
        total.kernels[Kernel(kernel, shapes, instruction.shapes)] += 1
    elif op in ("dot", "convolution"):
        total.products[_product(instruction, here), _moved(instruction, here)] += 1
    elif op == "fusion":
        _fusion(instruction, computations, here, of, total)
    elif op == "custom-call" and not instruction.operands:
        pass  # memory for later
    elif op not in FREE and not op.endswith(("-done", "-update")):
        total.other_bytes += _moved(instruction, here)
        total.host_bytes += _moved(instruction, here, HOST)


def _weight(counts: Counts) -> int:
    kernels = sum(_bytes_of(kernel.operands) * times for kernel, times in counts.kernels.items())
    return counts.matmul_flops + kernels + counts.other_bytes


def _fusion(instruction: Instruction, computations, here: Computation, of, total: Counts) -> None:
    """A fusion reads its operands and writes its results once, whatever it does inside, and may hold products."""
    name = called(instruction.attributes, "calls")[0]
    inside, body = of(name), computations[name]
    targets = " ".join(inner.attributes for inner in body.instructions if inner.op == "custom-call")
    if inside.collectives and "AsyncCollective" not in targets and not _continues(instruction):
        if len(inside.collectives) > 1:
            total.collectives.update(inside.collectives)
            return
        ((collective, times),) = inside.collectives.items()  # a reduce-scatter, as the TPU has it
        operand, result = _bytes_of(_taken(instruction, here)), _bytes_of(instruction.shapes)
        kind = "reduce-scatter" if collective.kind == "all-reduce" and result < operand else collective.kind
        total.collectives[Collective(kind, collective.groups, operand, result)] += times
        return
    if "AsyncCollective" in targets:  # a collective begins, which counts, or ends
        total.collectives.update(inside.collectives if "AsyncCollectiveStart" in targets else {})
        return
    total.host_bytes += _fusion_bytes(body, HOST)
    moved, flops = _fusion_bytes(body), inside.matmul_flops
    if flops:
        total.products[flops, moved] += 1
    else:
        total.other_bytes += moved
    for kernel, times in inside.kernels.items():
        total.kernels[kernel] += times


def _continues(instruction: Instruction) -> bool:
    """Whether a fusion goes on with a collective that was begun before, beside its own work."""
    return "calls=%async_collective_fusion" in instruction.attributes


def _fusion_bytes(body: Computation, memory: int = HBM) -> int:
    """What a fusion reads and writes in a memory, as `_moved`.

    Of slices that it takes from an operand, or writes into it in place, only those count; what it only hands on, or to
    a collective, it does not touch.
    """
    names = body.by_name
    users: dict[str, list[Instruction]] = {}
    for inner in body.instructions:
        for operand in inner.operands:
            users.setdefault(operand, []).append(inner)

    def through(name: str) -> list[Instruction]:
        """Users of a value, behind what only renames it."""
        return [
            last for user in users.get(name, []) for last in (through(user.name) if user.op == "bitcast" else [user])
        ]

    total = 0
    for inner in body.instructions:
        if inner.op != "parameter":
            continue
        mine = [user for user in through(inner.name) if user.op not in ("tuple", *COLLECTIVES)]
        if not mine:
            continue
        whole = _bytes_of(inner.shapes, memory)
        if whole and all(user.op in ("dynamic-slice", "dynamic-update-slice") for user in mine):
            sliced = 0
            for user in mine:
                part = user if user.op == "dynamic-slice" else names[user.operands[1]]
                in_place = user.op == "dynamic-update-slice" and _behind(user.operands[0], names) == inner.name
                sliced += 0 if in_place else _bytes_of(part.shapes)
            total += min(whole, sliced)
        else:
            total += whole
    return total + sum(_written(name, names, memory) for name in _roots(body, names))


def _behind(name: str, names: dict[str, Instruction]) -> str:
    while names[name].op == "bitcast":
        name = names[name].operands[0]
    return name


def _roots(body: Computation, names: dict[str, Instruction]) -> Iterator[str]:
    root = next(inner for inner in body.instructions if inner.root)
    yield from root.operands if root.op == "tuple" else (root.name,)


def _written(name: str, names: dict[str, Instruction], memory: int) -> int:
    inner = names[_behind(name, names)]
    whole = _bytes_of(inner.shapes, memory)
    if inner.op in ("parameter", *COLLECTIVES):
        return 0
    if inner.op == "dynamic-update-slice":
        return min(whole, _bytes_of(names[inner.operands[1]].shapes))
    return whole


def _bytes_of(shapes: Iterable[Shape], memory: int | None = None) -> int:
    """Those in one memory, or in any."""
    return sum(shape.bytes for shape in shapes if memory in (None, shape.memory))


def _taken(instruction: Instruction, here: Computation) -> Iterator[Shape]:
    """The shapes of its operands."""
    return (shape for name in instruction.operands for shape in here.by_name[name].shapes)


def _moved(instruction: Instruction, here: Computation, memory: int = HBM) -> int:
    """Bytes that an instruction reads and writes in a memory."""
    ends, size = [*_taken(instruction, here), *instruction.shapes], None
    if instruction.op in ("copy-start", "slice-start"):  # whose results begin with both ends
        ends = instruction.shapes[:2]
        size = min(shape.bytes for shape in ends)
    elif instruction.op in ("dynamic-slice", "slice"):
        ends = here.by_name[instruction.operands[0]].shapes + instruction.shapes
        size = _bytes_of(instruction.shapes)
    elif instruction.op == "dynamic-update-slice":
        part = here.by_name[instruction.operands[1]].shapes
        ends, size = part + instruction.shapes, _bytes_of(part)
    return sum(shape.bytes if size is None else size for shape in ends if shape.memory == memory)


def _collective(instruction: Instruction, here: Computation) -> Collective:
    kind = instruction.op.removesuffix("-start")
    operand = _bytes_of(_taken(instruction, here))
    shapes = instruction.shapes
    if instruction.op.endswith("-start") and len(shapes) > 1:  # operands, results, and what the compiler adds
        shapes = shapes[len(instruction.operands) : 2 * len(instruction.operands)]
    return Collective(kind, groups(instruction.attributes), operand, _bytes_of(shapes))


def _product(instruction: Instruction, here: Computation) -> int:
    """FLOPs of a matrix product or a convolution: two for every pair of numbers that meet."""
    names = here.by_name
    left, right = (names[name].shapes[0].dims for name in instruction.operands[:2])
    out = instruction.shapes[0]
    if instruction.op == "dot":
        contracted = ints(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)[1])
        return 2 * out.size * math.prod(left[dim] for dim in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    lhs, rhs, result = labels.groups()
    spatial = sorted(letter for letter in lhs if letter.isdigit())
    window = _window(instruction.attributes, len(spatial))
    pairs = 1
    for at, letter in enumerate(spatial):
        pairs *= _pairs(left[lhs.index(letter)], out.dims[result.index(letter)], *window[at])
    outer = out.dims[result.index("b")] * out.dims[result.index("f")]
    return 2 * outer * right[rhs.index("i")] * pairs


def _window(attributes: str, dims: int) -> list[tuple[int, int, int, int, int]]:
    """Size, stride, padding before, and dilation of the left and the right operand, of every spatial dimension."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    said = dict(part.split("=") for part in found[1].split()) if found else {}

    def of(key: str, default: str) -> list[str]:
        return said.get(key, "x".join([default] * dims)).split("x")

    low = [pad.split("_")[0] for pad in of("pad", "0_0")]
    columns = of("size", "1"), of("stride", "1"), low, of("lhs_dilate", "1"), of("rhs_dilate", "1")
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)] if dims else []


def _pairs(inputs: int, outputs: int, size: int, stride: int, low: int, lhs_dilate: int, rhs_dilate: int) -> int:
    """How many pairs of an output place and a window place read an input, rather than padding or holes."""
    total = 0
    for k in range(size):
        first = k * rhs_dilate - low  # the place read by output 0, in the dilated input
        for_all = range(first, first + outputs * stride, stride)
        if lhs_dilate == 1:
            total += len(range(max(0, -(first // stride)), min(outputs, (inputs - 1 - first) // stride + 1)))
        else:
            last = (inputs - 1) * lhs_dilate
            total += sum(0 <= place <= last and place % lhs_dilate == 0 for place in for_all)
    return total
