"""FLOPs, bytes, collectives and kernels of a compiled program, counted from XLA's optimized HLO.

`cost_analysis()` counts the body of a loop once; here it is multiplied by the loop's trip count. Of the branches of a
conditional the most expensive one is counted. Counts are per device.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from videodit.plan.hlo import (
    HBM,
    HOST,
    Computation,
    Instruction,
    Shape,
    get_called,
    parse,
    parse_groups,
    parse_ints,
    trip_count,
)

COLLECTIVES = "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"
# Operations that cost nothing, or that are counted in the computation that they call.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("while", "conditional", "call", "iota", "opt-barrier", "optimization-barrier"),
}

# Operations that call another computation, synchronously or not, also on a SparseCore.
CALLERS = "call", "async-start", "call-start", "custom-call", "custom-call-start"
CALLS = "to_apply", "calls", "called_computations"


class Collective(NamedTuple):
    """A collective within groups of devices; each device sends `operand` bytes and receives `result` bytes."""

    kind: str
    groups: tuple[tuple[int, ...], ...]
    operand: int
    result: int


class Kernel(NamedTuple):
    """A Pallas kernel: its name, and the shapes of its operands and results."""

    name: str
    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]


@dataclass
class Counts:
    """Operations of a program in one run on one device, with their numbers of executions.

    Attributes:
        products: matrix products and convolutions outside of kernels, as (FLOPs, bytes moved by their fusion).
        other_bytes: bytes moved by all other operations than products, collectives and kernels.
        host_bytes: bytes moved to and from the host's memory.
        collectives, kernels: collectives, and Pallas kernels.
    """

    products: Counter[tuple[int, int]] = field(default_factory=Counter)
    other_bytes: int = 0
    host_bytes: int = 0
    collectives: Counter[Collective] = field(default_factory=Counter)
    kernels: Counter[Kernel] = field(default_factory=Counter)

    @property
    def matmul_flops(self) -> int:
        """FLOPs of all products."""
        return sum(flops * executions for (flops, _), executions in self.products.items())

    def add(self, other: Counts, executions: int = 1) -> None:
        """Add the counts of a computation that is executed several times."""
        self.other_bytes += executions * other.other_bytes
        self.host_bytes += executions * other.host_bytes
        for ours, theirs in (
            (self.products, other.products),
            (self.collectives, other.collectives),
            (self.kernels, other.kernels),
        ):
            for key, count in theirs.items():
                ours[key] += executions * count


Computations = Mapping[str, Computation]
CountFn = Callable[[str], Counts]
"""Returns the counts of a computation by name."""


def count_operations(text: str) -> Counts:
    """Count the operations of one run of a module's entry computation.

    Args:
        text: the optimized HLO, as `compiled.as_text()` returns it.

    Raises:
        ValueError: if the trip count of a loop is not a constant of the program.
    """
    computations, entry = parse(text)
    counts: dict[str, Counts] = {}

    def count_computation(name: str) -> Counts:
        if name not in counts:
            counts[name] = Counts()  # HLO has no recursion
            for instruction in computations[name].instructions:
                _count(instruction, computations, computations[name], count_computation, counts[name])
        return counts[name]

    return count_computation(entry)


def _count(
    instruction: Instruction, computations: Computations, parent: Computation, count_fn: CountFn, total: Counts
) -> None:
    op, attributes = instruction.op, instruction.attributes
    if op == "while":
        executions = trip_count(computations[get_called(attributes, "condition")[0]], computations)
        total.add(count_fn(get_called(attributes, "body")[0]), executions)
    elif op == "conditional":
        branches = get_called(attributes, "branch_computations")
        branches = branches or get_called(attributes, "true_computation") + get_called(attributes, "false_computation")
        total.add(max(map(count_fn, branches), key=_cost))
    elif callees := [name for key in CALLS for name in get_called(attributes, key)] if op in CALLERS else []:
        for name in callees:
            total.add(count_fn(name))
    elif op.removesuffix("-start") in COLLECTIVES:
        total.collectives[_parse_collective(instruction, parent)] += 1
    elif op == "custom-call" and '"tpu_custom_call"' in attributes:
        shapes = tuple(_operand_shapes(instruction, parent))
        kernel = re.sub(r"[.\d]*$", "", re.sub(r"\.clone.*", "", instruction.name))
        total.kernels[Kernel(kernel, shapes, instruction.shapes)] += 1
    elif op in ("dot", "convolution"):
        total.products[_product_flops(instruction, parent), _bytes_moved(instruction, parent)] += 1
    elif op == "fusion":
        _count_fusion(instruction, computations, parent, count_fn, total)
    elif op == "custom-call" and not instruction.operands:
        pass  # allocates a buffer
    elif op not in FREE and not op.endswith(("-done", "-update")):
        total.other_bytes += _bytes_moved(instruction, parent)
        total.host_bytes += _bytes_moved(instruction, parent, HOST)


def _cost(counts: Counts) -> int:
    """Return a rough cost, to compare the branches of a conditional."""
    kernels = sum(_total_bytes(kernel.operands) * executions for kernel, executions in counts.kernels.items())
    return counts.matmul_flops + kernels + counts.other_bytes


def _count_fusion(
    instruction: Instruction, computations: Computations, parent: Computation, count_fn: CountFn, total: Counts
) -> None:
    """Count a fusion, which reads its operands and writes its results once, and may include products."""
    name = get_called(instruction.attributes, "calls")[0]
    fused, body = count_fn(name), computations[name]
    targets = " ".join(inner.attributes for inner in body.instructions if inner.op == "custom-call")
    if fused.collectives and "AsyncCollective" not in targets and not _is_async_continuation(instruction):
        if len(fused.collectives) > 1:
            total.collectives.update(fused.collectives)
            return
        ((collective, executions),) = fused.collectives.items()  # on TPUs, a reduce-scatter
        operand, result = _total_bytes(_operand_shapes(instruction, parent)), _total_bytes(instruction.shapes)
        kind = "reduce-scatter" if collective.kind == "all-reduce" and result < operand else collective.kind
        total.collectives[Collective(kind, collective.groups, operand, result)] += executions
        return
    if "AsyncCollective" in targets:  # the start of a collective, which is counted, or its end
        total.collectives.update(fused.collectives if "AsyncCollectiveStart" in targets else {})
        return
    total.host_bytes += _fusion_bytes(body, HOST)
    moved, flops = _fusion_bytes(body), fused.matmul_flops
    if flops:
        total.products[flops, moved] += 1
    else:
        total.other_bytes += moved
    for kernel, executions in fused.kernels.items():
        total.kernels[kernel] += executions


def _is_async_continuation(instruction: Instruction) -> bool:
    """Return whether a fusion overlaps its own work with a collective that was started earlier."""
    return "calls=%async_collective_fusion" in instruction.attributes


def _fusion_bytes(body: Computation, memory: int = HBM) -> int:
    """Return the bytes that a fusion reads and writes in a memory.

    Only the slices of an operand count that it reads, or updates in place. Operands that it passes through, or passes
    to a collective, do not count.
    """
    names = body.by_name
    users: dict[str, list[Instruction]] = {}
    for inner in body.instructions:
        for operand in inner.operands:
            users.setdefault(operand, []).append(inner)

    def find_users(name: str) -> list[Instruction]:
        """Return the users of a value, and of its bitcasts."""
        return [
            last for user in users.get(name, []) for last in (find_users(user.name) if user.op == "bitcast" else [user])
        ]

    total = 0
    for inner in body.instructions:
        if inner.op != "parameter":
            continue
        readers = [user for user in find_users(inner.name) if user.op not in ("tuple", *COLLECTIVES)]
        if not readers:
            continue
        operand_bytes = _total_bytes(inner.shapes, memory)
        if operand_bytes and all(user.op in ("dynamic-slice", "dynamic-update-slice") for user in readers):
            slice_bytes = 0
            for user in readers:
                part = user if user.op == "dynamic-slice" else names[user.operands[1]]
                in_place = user.op == "dynamic-update-slice" and _skip_bitcasts(user.operands[0], names) == inner.name
                slice_bytes += 0 if in_place else _total_bytes(part.shapes)
            total += min(operand_bytes, slice_bytes)
        else:
            total += operand_bytes
    return total + sum(_bytes_written(name, names, memory) for name in _root_names(body))


def _skip_bitcasts(name: str, names: Mapping[str, Instruction]) -> str:
    while names[name].op == "bitcast":
        name = names[name].operands[0]
    return name


def _root_names(body: Computation) -> tuple[str, ...]:
    root = next(inner for inner in body.instructions if inner.root)
    return root.operands if root.op == "tuple" else (root.name,)


def _bytes_written(name: str, names: Mapping[str, Instruction], memory: int) -> int:
    inner = names[_skip_bitcasts(name, names)]
    result_bytes = _total_bytes(inner.shapes, memory)
    if inner.op in ("parameter", *COLLECTIVES):
        return 0
    if inner.op == "dynamic-update-slice":
        return min(result_bytes, _total_bytes(names[inner.operands[1]].shapes))
    return result_bytes


def _total_bytes(shapes: Iterable[Shape], memory: int | None = None) -> int:
    """Return the bytes of the arrays in a memory; of all arrays if `memory` is None."""
    return sum(shape.bytes for shape in shapes if memory in (None, shape.memory))


def _operand_shapes(instruction: Instruction, parent: Computation) -> Iterator[Shape]:
    return (shape for name in instruction.operands for shape in parent.by_name[name].shapes)


def _bytes_moved(instruction: Instruction, parent: Computation, memory: int = HBM) -> int:
    """Return the bytes that an instruction reads and writes in a memory."""
    arrays, size = [*_operand_shapes(instruction, parent), *instruction.shapes], None
    if instruction.op in ("copy-start", "slice-start"):  # the first two results are target and source
        arrays = instruction.shapes[:2]
        size = min(shape.bytes for shape in arrays)
    elif instruction.op in ("dynamic-slice", "slice"):
        arrays = parent.by_name[instruction.operands[0]].shapes + instruction.shapes
        size = _total_bytes(instruction.shapes)
    elif instruction.op == "dynamic-update-slice":
        part = parent.by_name[instruction.operands[1]].shapes
        arrays, size = part + instruction.shapes, _total_bytes(part)
    return sum(shape.bytes if size is None else size for shape in arrays if shape.memory == memory)


def _parse_collective(instruction: Instruction, parent: Computation) -> Collective:
    kind = instruction.op.removesuffix("-start")
    operand = _total_bytes(_operand_shapes(instruction, parent))
    shapes = instruction.shapes
    if instruction.op.endswith("-start") and len(shapes) > 1:  # operands, results, and the compiler's own values
        shapes = shapes[len(instruction.operands) : 2 * len(instruction.operands)]
    return Collective(kind, parse_groups(instruction.attributes), operand, _total_bytes(shapes))


def _product_flops(instruction: Instruction, parent: Computation) -> int:
    """Return the FLOPs of a matrix product or a convolution: two per multiply-add."""
    names = parent.by_name
    left, right = (names[name].shapes[0].dims for name in instruction.operands[:2])
    out = instruction.shapes[0]
    if instruction.op == "dot":
        contracted = parse_ints(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)[1])
        return 2 * out.size * math.prod(left[dim] for dim in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    lhs, rhs, result = labels.groups()
    spatial = sorted(letter for letter in lhs if letter.isdigit())
    window = _parse_window(instruction.attributes, len(spatial))
    taps = 1
    for axis, letter in enumerate(spatial):
        taps *= _count_taps(left[lhs.index(letter)], out.dims[result.index(letter)], window[axis])
    outer = out.dims[result.index("b")] * out.dims[result.index("f")]
    return 2 * outer * right[rhs.index("i")] * taps


class Window(NamedTuple):
    """The window of a convolution along a spatial dimension."""

    size: int
    stride: int
    pad_low: int
    lhs_dilate: int
    rhs_dilate: int


def _parse_window(attributes: str, dims: int) -> list[Window]:
    """Return the window of every spatial dimension."""
    match = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in match[1].split()) if match else {}

    def values(key: str, default: str) -> list[str]:
        return fields.get(key, "x".join([default] * dims)).split("x")

    pad_low = [pad.split("_")[0] for pad in values("pad", "0_0")]
    columns = values("size", "1"), values("stride", "1"), pad_low, values("lhs_dilate", "1"), values("rhs_dilate", "1")
    return [Window(*map(int, row)) for row in zip(*columns, strict=True)] if dims else []


def _count_taps(inputs: int, outputs: int, window: Window) -> int:
    """Return how many pairs of an output and a window position read an input, not padding or a dilation hole."""
    total, stride = 0, window.stride
    for k in range(window.size):
        first = k * window.rhs_dilate - window.pad_low  # position that output 0 reads, in the dilated input
        if window.lhs_dilate == 1:
            total += len(range(max(0, -(first // stride)), min(outputs, (inputs - 1 - first) // stride + 1)))
        else:
            last = (inputs - 1) * window.lhs_dilate
            positions = range(first, first + outputs * stride, stride)
            total += sum(0 <= position <= last and position % window.lhs_dilate == 0 for position in positions)
    return total
