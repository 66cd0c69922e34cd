"""Compiling for a machine that is not here, in a process of its own: libtpu may abort, and takes one kind of chip.

The parent sends a request as JSON and gets a plan as JSON, or one sentence about what is wrong.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from videodit.config.io import from_json, to_json
from videodit.config.run import Run
from videodit.models.vae import VAEConfig
from videodit.parallel.mesh import make_mesh
from videodit.plan.count import Counts, count
from videodit.plan.memory import memory_of, memory_wanted
from videodit.plan.network import Network
from videodit.plan.plan_report import Plan
from videodit.plan.program import Program, What, program
from videodit.plan.roofline import hardware_flops, roofline
from videodit.plan.topology import Topology

USER_ERROR = 2
TIMEOUT = 3600.0
DUMP = "--xla_dump_to={} --xla_dump_hlo_as_text"


def compile_plan(
    run: Run,
    topology: Topology,
    what: What = "train",
    vae: Run | None = None,
    *,
    name: str = "",
    hlo: Path | None = None,
) -> Plan:
    """What a run's program needs on a machine, told by that machine's compiler.

    Args:
        vae: the run of the autoencoder whose latents a transformer learns; None as in `program`.
        name: of the configuration, for the plan.
        hlo: a file that the optimised HLO is written to.

    Raises:
        ValueError: when the run does not fit the machine's shape, or libtpu is missing.
        RuntimeError: when the compiler fails for another reason than memory.
    """
    request = {"run": to_json(run), "vae": vae and to_json(vae), "topology": topology.name, "what": what, "name": name}
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        environment = topology.environment()
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DUMP.format(folder)}"
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # what is not compiled is not dumped
        try:
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name],
                input=json.dumps(request | {"folder": folder, "hlo": hlo and str(hlo)}),
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"compiling for {topology.name} took more than {TIMEOUT / 60:.0f} minutes") from None
    if done.returncode == USER_ERROR:
        raise ValueError(done.stderr.splitlines()[-1])
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"the compiler for {topology.name} gave up ({how}): {last[:500]}")
    return Plan(**json.loads(done.stdout.splitlines()[-1]))


def _plan(run: Run, topology: Topology, what: What, vae: VAEConfig | None, name: str, folder: Path) -> tuple[Plan, str]:
    """The plan, made in this process, and the program's optimised HLO, which XLA leaves in `folder`."""
    mesh = make_mesh(run.mesh, topology.devices(), heads=run.heads)
    wanted = program(what, run, mesh, vae)
    started = time.perf_counter()
    try:
        compiled, complaint = wanted.compile(mesh), ""
    except jax.errors.JaxRuntimeError as error:
        compiled, complaint = None, str(error)
    seconds = time.perf_counter() - started
    text = _optimised(folder, wanted)
    if text is None:  # it did not come as far as that
        raise RuntimeError(complaint)
    memory = memory_of(wanted, compiled, text) if compiled else memory_wanted(wanted, complaint, text)
    if memory is None:
        raise RuntimeError(complaint)
    chip = topology.chip
    sizes = memory.of_chip(chip.devices if chip else 1)
    plan = Plan(
        config=name,
        what=what,
        topology=topology.name,
        chips=topology.num_chips,
        mesh=_sizes(mesh),
        batch=run.data.batch_size,
        tokens_per_clip=wanted.task.tokens_per_clip,
        micro_batches=run.optim.micro_batches,
        remat=getattr(run.model, "remat", "-") if what == "train" else "-",
        fits=compiled is not None and (chip is None or sizes["total"] <= chip.hbm_bytes),
        hbm_bytes=chip and chip.hbm_bytes,
        bytes_per_chip=sizes,
        compile_seconds=round(seconds, 1),
        **_speed(wanted, count(text), topology, mesh),
    )
    return plan, text


def _optimised(folder: Path, wanted: Program) -> str | None:
    """What XLA wrote, also of programs that are too large, and of those newer than what JAX can read itself."""
    files = folder.glob(f"*jit_{wanted.fn.__name__}.*after_optimizations.txt")
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    return largest and largest.read_text()


def _sizes(mesh: Mesh) -> dict[str, int]:
    """Of a mesh's axes as a configuration has them."""
    axes = dict(mesh.shape)
    context = axes["ring"] * axes["ulysses"]
    return {"data": axes["data"], "fsdp": axes["fsdp"], "context": context, "tensor": axes["tensor"]} | {
        "ulysses": axes["ulysses"]
    }


def _speed(wanted: Program, counts: Counts, topology: Topology, mesh: Mesh) -> dict[str, Any]:
    """The fields of a plan that say what a program does and how long it takes."""
    chip, devices = topology.chip, topology.num_devices
    model, hardware = wanted.model_flops, devices * hardware_flops(counts)
    moved: Counter[str] = Counter()
    for collective, times in counts.collectives.items():
        moved[collective.kind] += times * max(collective.operand, collective.result) * (chip.devices if chip else 1)
    fields = {
        "flops_per_step": {"model": model, "hardware": float(hardware)},
        "collective_bytes_per_step": dict(moved),
    }
    if chip is None:
        return fields
    line = roofline(counts, chip, Network.of(chip, mesh.devices.flat))
    ends = {"no_overlap": line.no_overlap, "full_overlap": line.full_overlap}
    seconds = {
        "matmul": line.matmul,
        "attention": line.attention,
        "hbm": line.hbm,
        "collectives": sum(line.collectives.values()),
        "host": line.host,
    }
    peak = topology.num_chips * chip.flops
    fields |= {
        "seconds": seconds | {f"step_{end}": taken for end, taken in ends.items()},
        "tokens_per_second_per_chip": wanted.tokens / line.no_overlap / topology.num_chips,
    }
    if model:
        ideal = {"model": model / peak, "again": (hardware - model) / peak}
        below = {
            "attention": line.attention - devices * (hardware_flops(counts) - counts.matmul_flops) / peak,
            "matmul": line.matmul - devices * counts.matmul_flops / peak,
        }
        fields["causes"] = ideal | below | {name: seconds[name] for name in ("hbm", "collectives", "host")}
        fields["mfu"] = {end: model / peak / taken for end, taken in ends.items()}
    return fields


def _main() -> int:
    """Reads a request, writes a plan."""
    asked = json.load(sys.stdin)
    try:
        run, vae = from_json(asked["run"]), asked["vae"] and from_json(asked["vae"]).model
        topology, folder = Topology.parse(asked["topology"]), Path(asked["folder"])
        plan, text = _plan(run, topology, asked["what"], vae, asked["name"], folder)
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return USER_ERROR
    if asked["hlo"]:
        Path(asked["hlo"]).write_text(text)
    print(json.dumps(plan.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
