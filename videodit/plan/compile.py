"""Compile for a target topology in a child process: libtpu may abort, and serves one kind of chip per process.

The parent sends a request as JSON and receives a plan as JSON, or an error message of one sentence.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from videodit.child_process import end_with_parent
from videodit.config.io import from_json, to_json
from videodit.config.json_file import parse_json
from videodit.config.run import Run
from videodit.config.schema import from_tree
from videodit.models.vae import VAEConfig
from videodit.parallel.mesh import make_mesh, mesh_sizes
from videodit.plan.hlo_counts import Counts, count_operations
from videodit.plan.memory import measure_memory, parse_out_of_memory
from videodit.plan.network import Network
from videodit.plan.plan_report import Plan
from videodit.plan.program import Program, ProgramName, build_program
from videodit.plan.roofline import Roofline, compute_roofline, hardware_flops
from videodit.plan.topology import Topology

USER_ERROR = 2
TIMEOUT = 3600.0
DUMP = "--xla_dump_to={} --xla_dump_hlo_as_text"


@dataclass(frozen=True)
class _Request:
    """What the child compiles: runs as JSON, and the arguments of `compile_plan`; XLA dumps into `folder`."""

    run: str
    vae: str | None
    topology: str
    what: ProgramName
    name: str
    folder: str
    hlo: str | None


def compile_plan(
    run: Run,
    topology: Topology,
    what: ProgramName = "train",
    vae: Run | None = None,
    *,
    name: str = "",
    hlo: Path | None = None,
) -> Plan:
    """Compile a run's program for a topology and return its plan.

    Args:
        vae: the run of the autoencoder of a transformer's latents; None as in `build_program`.
        name: of the configuration, for the plan.
        hlo: a file to write the optimized HLO to.

    Raises:
        ValueError: if sizes do not divide over the mesh, or libtpu is missing.
        RuntimeError: if the compiler fails for another reason than memory.
    """
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        request = _Request(
            run=to_json(run),
            vae=vae and to_json(vae),
            topology=topology.name,
            what=what,
            name=name,
            folder=folder,
            hlo=hlo and str(hlo),
        )
        environment = topology.environment()
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DUMP.format(folder)}"
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # cached programs are not dumped
        try:
            child = subprocess.run(
                [sys.executable, "-m", __spec__.name, str(os.getpid())],
                input=json.dumps(asdict(request)),
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"compiling for {topology.name} took more than {TIMEOUT / 60:.0f} minutes") from None
    last = (child.stderr.strip().splitlines() or ["no message"])[-1]
    if child.returncode == USER_ERROR:
        raise ValueError(last)
    if child.returncode:
        status = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
        raise RuntimeError(f"the compiler for {topology.name} failed ({status}): {last[:500]}")
    try:
        return from_tree(Plan, parse_json((child.stdout.splitlines() or [""])[-1]))
    except ValueError as error:
        raise RuntimeError(f"the compiler for {topology.name} ended without a plan: {error}; {last[:500]}") from error


def _compile_here(
    run: Run, topology: Topology, what: ProgramName, vae: VAEConfig | None, name: str, folder: Path
) -> tuple[Plan, str]:
    """Compile in this process; returns the plan and the optimized HLO, which XLA writes to `folder`."""
    mesh = make_mesh(run.mesh, topology.devices(), heads=run.heads)
    program = build_program(what, run, mesh, vae)
    start = time.perf_counter()
    try:
        compiled, error_message = program.compile(mesh), ""
    except jax.errors.JaxRuntimeError as error:
        compiled, error_message = None, str(error)
    seconds = time.perf_counter() - start
    text = _read_hlo(folder, program)
    if text is None:  # the compiler failed before optimization
        raise RuntimeError(error_message)
    if compiled is not None:
        memory = measure_memory(program, compiled, text)
    else:
        memory = parse_out_of_memory(program, error_message, text)
    if memory is None:
        raise RuntimeError(error_message)
    chip = topology.chip
    sizes = memory.per_chip(chip.devices if chip else 1)
    speed = _estimate_speed(program, count_operations(text), topology, mesh)
    plan = Plan(
        config=name,
        what=what,
        topology=topology.name,
        chips=topology.num_chips,
        mesh=mesh_sizes(mesh),
        batch=run.data.batch_size,
        tokens_per_clip=program.task.tokens_per_clip,
        micro_batches=run.optim.micro_batches,
        remat=getattr(run.model, "remat", "-") if what == "train" else "-",
        fits=compiled is not None and (chip is None or sizes["total"] <= chip.hbm_bytes),
        hbm_bytes=chip and chip.hbm_bytes,
        bytes_per_chip=sizes,
        compile_seconds=round(seconds, 1),
        flops_per_step=speed.flops,
        collective_bytes_per_step=speed.collective_bytes,
        seconds=speed.seconds,
        causes=speed.causes,
        mfu=speed.mfu,
        tokens_per_second_per_chip=speed.tokens_per_second_per_chip,
    )
    return plan, text


def _read_hlo(folder: Path, program: Program) -> str | None:
    """Return the optimized HLO that XLA dumped, which it also does for programs that are too large."""
    files = folder.glob(f"*jit_{program.fn.__name__}.*after_optimizations.txt")
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    return largest and largest.read_text()


class Speed(NamedTuple):
    """FLOPs, communication and time of a program; see the fields of `Plan`."""

    flops: dict[str, float | None]
    collective_bytes: dict[str, int]
    seconds: dict[str, float] | None = None
    causes: dict[str, float] | None = None
    mfu: dict[str, float] | None = None
    tokens_per_second_per_chip: float | None = None


def _estimate_speed(program: Program, counts: Counts, topology: Topology, mesh: Mesh) -> Speed:
    chip = topology.chip
    model, hardware = program.model_flops, topology.num_devices * hardware_flops(counts)
    flops = {"model": model, "hardware": float(hardware)}
    collective_bytes: Counter[str] = Counter()
    for collective, executions in counts.collectives.items():
        size = max(collective.operand, collective.result) * (chip.devices if chip else 1)
        collective_bytes[collective.kind] += executions * size
    if chip is None:
        return Speed(flops, dict(collective_bytes))
    line = compute_roofline(counts, chip, Network.from_devices(chip, mesh.devices.flat))
    peak = topology.num_chips * chip.flops
    seconds = {
        "matmul": line.matmul,
        "attention": line.attention,
        "hbm": line.hbm,
        "collectives": sum(line.collectives.values()),
        "host": line.host,
        "step_no_overlap": line.no_overlap,
        "step_full_overlap": line.full_overlap,
    }
    return Speed(
        flops=flops,
        collective_bytes=dict(collective_bytes),
        seconds=seconds,
        causes=_split_seconds(model, counts, line, topology, peak) if model else None,
        mfu={end: model / peak / seconds[f"step_{end}"] for end in ("no_overlap", "full_overlap")} if model else None,
        tokens_per_second_per_chip=program.tokens / line.no_overlap / topology.num_chips,
    )


def _split_seconds(
    model_flops: float, counts: Counts, line: Roofline, topology: Topology, peak: float
) -> dict[str, float]:
    """Split the seconds without overlap into the model's FLOPs at peak and the causes of further time."""
    devices, hardware = topology.num_devices, topology.num_devices * hardware_flops(counts)
    attention_flops = devices * (hardware_flops(counts) - counts.matmul_flops)
    return {
        "model": model_flops / peak,
        "again": (hardware - model_flops) / peak,
        "attention": line.attention - attention_flops / peak,
        "matmul": line.matmul - devices * counts.matmul_flops / peak,
        "hbm": line.hbm,
        "collectives": sum(line.collectives.values()),
        "host": line.host,
    }


def _main() -> int:
    """Read a request from stdin, and print a plan."""
    end_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.alarm(int(TIMEOUT) + 60)  # which ends it, should the parent not
    try:
        request = from_tree(_Request, parse_json(sys.stdin.read()))
        run, vae = from_json(request.run), request.vae and from_json(request.vae).model
        topology, folder = Topology.parse(request.topology), Path(request.folder)
        plan, text = _compile_here(run, topology, request.what, vae, request.name, folder)
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return USER_ERROR
    if request.hlo:
        Path(request.hlo).write_text(text)
    print(json.dumps(plan.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
