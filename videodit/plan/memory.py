"""What a program holds in a device's memory, by what it is for."""

import re
from dataclasses import asdict, dataclass
from typing import Any

import jax

from videodit.plan.hlo import Computation, Instruction, parse
from videodit.plan.program import Program, bytes_per_device

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
        parameters, optimiser, ema: the state, which the step is given and gives back in place.
        inputs: other arguments: the batch, and weights that are not trained.
        gradients: one for every parameter, where the program has them.
        activations: what loops leave for later ones: what the forward pass over the layers keeps for the backward pass.
        working: other temporaries at the peak.
        outputs: results that take no argument's place.
        code: the program itself.
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
        """As the compiler has it: gradients, activations and all else that comes and goes."""
        return self.gradients + self.activations + self.working

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def of_chip(self, devices: int) -> dict[str, int]:
        """By name, with the sums, of a chip that is so many devices."""
        sums = {"temporary": self.temporary, "total": self.total}
        return {name: devices * size for name, size in (asdict(self) | sums).items()}


def memory_of(program: Program, compiled: jax.stages.Compiled, text: str) -> Memory:
    """That of a compiled program. `text`: its optimised HLO."""
    found = compiled.memory_analysis()
    state = _state(program)
    return Memory(
        **state,
        inputs=found.argument_size_in_bytes - sum(state.values()),
        **_temporary(program, found.temp_size_in_bytes, text),
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        code=found.generated_code_size_in_bytes,
    )


def memory_wanted(program: Program, complaint: str, text: str) -> Memory | None:
    """That of a program which the compiler found too large, from its words; None if it complains of something else."""
    state = _state(program)
    inputs = max(_taken(text) - sum(state.values()), 0)
    if found := re.search(r"HLO temporaries \(([\d.]+)([KMGT]?)\)", complaint):
        temporary = _bytes(*found.groups())
    elif found := re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", complaint):
        temporary = _bytes(*found.groups()) - sum(state.values()) - inputs
    else:
        return None
    return Memory(**state, inputs=inputs, **_temporary(program, temporary, text), outputs=0, code=0)


def _taken(text: str) -> int:
    """Bytes of the arguments that a program has kept."""
    computations, entry = parse(text)
    parameters = (i for i in computations[entry].instructions if i.op == "parameter")
    return sum(shape.bytes for parameter in parameters for shape in parameter.shapes)


def _temporary(program: Program, whole: int, text: str) -> dict[str, int]:
    """What is temporary, by what it is for."""
    gradients = min(bytes_per_device(program.gradients), whole)
    activations = min(left_by_loops(text), whole - gradients)
    return {"gradients": gradients, "activations": activations, "working": whole - gradients - activations}


def _state(program: Program) -> dict[str, int]:
    return {name: bytes_per_device(program.parts.get(name)) for name in ("parameters", "optimiser", "ema")}


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def left_by_loops(text: str) -> int:
    """Bytes in main memory that loops of an optimised HLO take over from loops before them, each counted once."""
    computations, _ = parse(text)
    left: dict[Any, int] = {}
    for name, computation in computations.items():
        for loop in (i for i in computation.instructions if i.op == "while"):
            first = computation.by_name[loop.operands[0]]
            for operand, shape in zip(first.operands, loop.shapes, strict=False):
                source, index = _source(operand, computation)
                if source is not None and source.op == "while" and not shape.memory:
                    left[name, source.name, index] = shape.bytes
    return sum(left.values())


def _source(name: str, computation: Computation) -> tuple[Instruction | None, str]:
    """What a value was made by, behind what only renames or copies it, and which of its results it is."""
    index = ""
    while (found := computation.by_name.get(name)) is not None:
        if found.op == "get-tuple-element":
            index = found.attributes
        elif found.op not in ("bitcast", "copy", "copy-start", "copy-done", "opt-barrier") or not found.operands:
            return found, index
        name = found.operands[0]
    return None, index
