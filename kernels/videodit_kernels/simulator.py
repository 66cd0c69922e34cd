"""Simulated time of a kernel on a TPU, without the TPU.

libtpu compiles for TPUs that are not attached, and can execute a kernel's final schedule against its own model of
control flow, copies and the units' hazards: the same integer every time. The report also names the unit that the tile's
body keeps busiest, and counts spills. docs/attention.md lists what the simulator does not model.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


@dataclass(frozen=True)
class Chip:
    """A TPU by libtpu's name, one device of JAX. `flops` are bfloat16 FLOPs per cycle; `ghz` 10^9 cycles per second."""

    topology: str
    ghz: float
    flops: int
    cores: int = 1

    @property
    def peak(self) -> float:
        """Return the peak FLOP/s in bfloat16."""
        return self.flops * self.ghz * 1e9


CHIPS = {
    "v5e": Chip("v5e:2x2", 1.5, 131072),
    "v5p": Chip("v5p:2x2x1", 1.75, 262144, cores=2),
    "v6e": Chip("v6e:2x2", 1.75, 524288),
    "tpu7x": Chip("tpu7x:2x2x1", 2.2, 524288),
}


class Kernel(NamedTuple):
    """A program to simulate. Cycles count all operations of `fn` but those whose name starts with `excluded_prefix`."""

    fn: Callable
    arguments: list[jax.ShapeDtypeStruct]
    name: str  # of the Pallas call whose schedule is read
    flops: int
    steps: int  # of its grid
    excluded_prefix: str = "nothing"


@dataclass(frozen=True)
class Report:
    """Simulated performance of one kernel. `busy`: the share of each unit's slots that the tile's body uses."""

    cycles: int
    step_cycles: float
    tflops: float
    share: float
    bundles: int
    spills: int
    busy: dict[str, float]

    @property
    def binding(self) -> str:
        """Return the unit that is used most."""
        return max(self.busy, key=self.busy.__getitem__)


def simulate(builder: str, arguments: dict[str, Any], chip: str, timeout: float = 600.0) -> Report:
    """Compile and simulate `builder` ("module:function", which returns a `Kernel`) called with `arguments`.

    It runs in a process of its own, since libtpu reads its flags once and a failed simulation ends the process.

    Raises:
        RuntimeError: with libtpu's message if the kernel does not compile or is not simulated.
    """
    return _simulate(builder, arguments, chip, timeout, _read)


def simulate_cycles(builder: str, arguments: dict[str, Any], chip: str, timeout: float = 600.0) -> int:
    """Return the cycles of all operations of a program, which need not be one kernel; otherwise as `simulate`."""
    return _simulate(
        builder,
        arguments,
        chip,
        timeout,
        lambda profile, dump, chip, excluded_prefix, **_: _count_cycles(profile, excluded_prefix),
    )


def _simulate(builder: str, arguments: dict[str, Any], chip: str, timeout: float, read: Callable):
    if importlib.util.find_spec("libtpu") is None:
        raise RuntimeError("the simulator is libtpu's, and libtpu is not installed: pip install libtpu")
    with tempfile.TemporaryDirectory(prefix="schedule-") as folder:
        profile, dump = Path(folder, "profile"), Path(folder, "dump")
        profile.mkdir(), dump.mkdir()
        flags = (
            f"--xla_jf_dump_static_llo_profile_to={profile} --xla_jf_emit_annotations=true --xla_jf_dump_to={dump} "
            "--xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=.*final.* "
            "--xla_tpu_scoped_vmem_limit_kib=65536"
        )
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "LIBTPU_INIT_ARGS": flags,
        }
        command = [sys.executable, "-m", __spec__.name, json.dumps([builder, arguments, chip])]
        try:
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the simulation of {builder} for {chip} took more than {timeout:.0f} s") from None
        if run.returncode < 0:
            raise RuntimeError(f"libtpu's simulator gave up on {builder} for {chip} (signal {-run.returncode})")
        if run.returncode:
            raise RuntimeError(_error_message(run.stderr))
        program = json.loads(run.stdout.splitlines()[-1])
        return read(profile, dump, CHIPS[chip], **program)


def _error_message(text: str) -> str:
    lines = [line for line in text.splitlines() if re.search(r"^\w*Error|RESOURCE|exceed", line)]
    return (lines or text.splitlines() or ["libtpu printed no error"])[-1][:300]


def _compile(builder: str, arguments: dict[str, Any], chip: str) -> None:
    """Compile the kernel in this process; libtpu writes the files that `_read` parses."""
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    module, name = builder.split(":")
    kernel = getattr(importlib.import_module(module), name)(**arguments)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip].topology).devices
    mesh, whole = Mesh(np.array(devices[:1]), ("device",)), PartitionSpec()
    arrays = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, whole)) for x in kernel.arguments]
    fn = jax.shard_map(kernel.fn, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    jax.jit(fn).lower(*arrays).compile()
    print(
        json.dumps(
            {
                "name": kernel.name,
                "flops": kernel.flops,
                "steps": kernel.steps,
                "excluded_prefix": kernel.excluded_prefix,
            }
        )
    )


def _read(profile: Path, dump: Path, chip: Chip, name: str, flops: int, steps: int, excluded_prefix: str) -> Report:
    cycles = _count_cycles(profile, excluded_prefix, name)
    (bundles,) = dump.glob(f"*-{name}*[0-9]-final_bundles.txt")
    (slots,) = dump.glob(f"*-{name}*static-per-bundle-utilization.txt")
    units, capacity, used = _read_slots(slots)
    start, end = _find_body(bundles, len(used))
    total = used[start:end].sum(0)
    busy = {unit: total[k] / (capacity[k] * (end - start)) for k, unit in enumerate(units) if ":" not in unit}
    spills = int(total[units.index("VSTORE:SPILL")])
    seconds = cycles / chip.ghz / 1e9
    share = flops / chip.flops / cycles
    return Report(cycles, cycles * chip.cores / steps, flops / seconds / 1e12, share, end - start, spills, busy)


def _count_cycles(profile: Path, excluded_prefix: str, name: str = "") -> int:
    """Sum the cycles of all operations but those whose name starts with `excluded_prefix`.

    Raises:
        RuntimeError: if there is no operation whose name starts with `name`.
    """
    cycles = {}
    for path in profile.glob("*.textproto"):
        text = path.read_text()
        op = re.search(r'hlo_op_name: "([^"]+)"', text)[1]
        if not op.startswith(excluded_prefix):
            cycles[op] = int(re.search(r"estimated_cycles: (\d+)", text)[1])
    if not any(op.startswith(name) for op in cycles):
        raise RuntimeError(f"libtpu compiled {name or 'the program'} but did not simulate it")
    return sum(cycles.values())


def _read_slots(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the units, their slots per bundle, and the slots used [bundles, units]."""
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("MATMUL"))
    units = [unit.strip() for unit in lines[at].split(",")]
    rows = [line.split() for line in lines[at + 1 :] if re.fullmatch(r"[\d ]+", line.strip() or "-")]
    table = np.array([row for row in rows if len(row) == len(units)], np.int64)
    return units, table[0], table[1:]


def _find_body(path: Path, count: int) -> tuple[int, int]:
    """Find the longest run of bundles without a branch into it or out of it: the unrolled body of the tile."""
    cuts, bundle = [0], -1
    with path.open(errors="replace") as lines:
        for line in lines:
            head = re.match(r"\s*(?:0x[0-9a-f]+|0)\s*([A-Z]{2})?\s*:", line)
            if head:
                bundle += 1
                if head[1]:
                    cuts.append(bundle)
            if "sbr.rel" in line:
                cuts.append(bundle + 1)
    cuts.append(count)
    cuts = sorted({min(cut, count) for cut in cuts})
    return max(itertools.pairwise(cuts), key=lambda run: run[1] - run[0])


if __name__ == "__main__":
    _compile(*json.loads(sys.argv[1]))
