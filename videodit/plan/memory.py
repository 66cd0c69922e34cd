"""The memory of a device that a program needs, by purpose."""

import re
from dataclasses import asdict, dataclass
from typing import NamedTuple

import jax

from videodit.plan.hlo import Computation, Instruction, parse
from videodit.plan.program import Program, bytes_per_device

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
        parameters, optimiser, ema: the training state, which the step updates in place.
        inputs: other arguments: the batch, and frozen weights.
        gradients: one per parameter, if the program computes them.
        activations: values that a loop stores for a later loop, as the forward pass does for the backward pass.
        working: other temporary buffers at the peak.
        outputs: results that do not reuse the memory of an argument.
        code: the program.
    """

    parameters: int
    optimiser: int
    ema: int
    inputs: int
    gradients: int
    activations: int
    working: int
    outputs: int
    code: int

    @property
    def temporary(self) -> int:
        """What the compiler reports as temporary: gradients, activations and working memory."""
        return self.gradients + self.activations + self.working

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(asdict(self).values())

    def per_chip(self, devices: int) -> dict[str, int]:
        """Return the bytes of a chip by purpose, with `temporary` and `total`.

        Args:
            devices: the number of JAX devices of a chip.
        """
        sizes = asdict(self) | {"temporary": self.temporary, "total": self.total}
        return {name: devices * size for name, size in sizes.items()}


class StateBytes(NamedTuple):
    """Bytes of the training state on one device."""

    parameters: int
    optimiser: int
    ema: int


class TemporaryBytes(NamedTuple):
    """Bytes of temporary buffers on one device."""

    gradients: int
    activations: int
    working: int


def measure_memory(program: Program, compiled: jax.stages.Compiled, text: str) -> Memory:
    """Return the memory of a compiled program.

    Args:
        text: its optimized HLO.
    """
    analysis = compiled.memory_analysis()
    state = _state_bytes(program)
    temporary = _split_temporary(program, analysis.temp_size_in_bytes, text)
    return Memory(
        parameters=state.parameters,
        optimiser=state.optimiser,
        ema=state.ema,
        inputs=analysis.argument_size_in_bytes - sum(state),
        gradients=temporary.gradients,
        activations=temporary.activations,
        working=temporary.working,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


def parse_out_of_memory(program: Program, error: str, text: str) -> Memory | None:
    """Return the memory of a program that the compiler refused as too large, from its error message.

    Args:
        text: the program's optimized HLO.

    Returns:
        None if the error has another cause.
    """
    state = _state_bytes(program)
    inputs = max(_argument_bytes(text) - sum(state), 0)
    if match := re.search(r"HLO temporaries \(([\d.]+)([KMGT]?)\)", error):
        temporary_bytes = _parse_size(*match.groups())
    elif match := re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", error):
        temporary_bytes = _parse_size(*match.groups()) - sum(state) - inputs
    else:
        return None
    temporary = _split_temporary(program, temporary_bytes, text)
    return Memory(
        parameters=state.parameters,
        optimiser=state.optimiser,
        ema=state.ema,
        inputs=inputs,
        gradients=temporary.gradients,
        activations=temporary.activations,
        working=temporary.working,
        outputs=0,
        code=0,
    )


def _argument_bytes(text: str) -> int:
    """Return the bytes of a program's arguments, without those that the compiler removed."""
    computations, entry = parse(text)
    parameters = (i for i in computations[entry].instructions if i.op == "parameter")
    return sum(shape.bytes for parameter in parameters for shape in parameter.shapes)


def _split_temporary(program: Program, total: int, text: str) -> TemporaryBytes:
    gradients = min(bytes_per_device(program.gradients), total)
    activations = min(activation_bytes(text), total - gradients)
    return TemporaryBytes(gradients, activations, total - gradients - activations)


def _state_bytes(program: Program) -> StateBytes:
    return StateBytes(*(bytes_per_device(program.state.get(name)) for name in StateBytes._fields))


def _parse_size(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def activation_bytes(text: str) -> int:
    """Return the bytes in HBM that loops of an optimized HLO read from earlier loops, each array counted once."""
    computations, _ = parse(text)
    sizes: dict[tuple[str, str, str], int] = {}
    for name, computation in computations.items():
        for loop in (i for i in computation.instructions if i.op == "while"):
            first = computation.by_name[loop.operands[0]]
            for operand, shape in zip(first.operands, loop.shapes, strict=False):
                producer, index = _find_producer(operand, computation)
                if producer is not None and producer.op == "while" and not shape.memory:
                    sizes[name, producer.name, index] = shape.bytes
    return sum(sizes.values())


def _find_producer(name: str, computation: Computation) -> tuple[Instruction | None, str]:
    """Return the instruction that computed a value, across bitcasts and copies, and which of its results it is."""
    index = ""
    while (instruction := computation.by_name.get(name)) is not None:
        if instruction.op == "get-tuple-element":
            index = instruction.attributes
        elif (
            instruction.op not in ("bitcast", "copy", "copy-start", "copy-done", "opt-barrier")
            or not instruction.operands
        ):
            return instruction, index
        name = instruction.operands[0]
    return None, index
