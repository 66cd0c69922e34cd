"""The table of docs/plan.md: every configuration on a machine that it fits on, as the TPU compiler plans it.

    .venv/bin/python experiments/bench/plan_configs.py [NAME ...]

Compiles each for its target topology, one after another; with names (`dit.py:XL`), only those.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from videodit.config.io import load
from videodit.parallel.mesh import parse_mesh
from videodit.plan.compile import compile_plan
from videodit.plan.plan_report import Plan, format_mesh
from videodit.plan.topology import Topology

ROOT = Path(__file__).parents[2]
HEAD = (
    "configuration",
    "batch",
    "machine",
    "mesh and overrides",
    "GiB per chip",
    "seconds per step",
    "MFU",
    "compiled in, s",
)


@dataclass(frozen=True)
class Case:
    """A configuration by name, a machine for it, and overrides of its defaults."""

    config: str
    topology: str
    mesh: str = "data=-1"
    overrides: tuple[str, ...] = ()
    vae: str | None = None


CASES = [
    Case("quickstart.py:vae", "v5e:1x1"),
    Case("quickstart.py:dit", "v5e:1x1", vae="quickstart.py:vae"),
    Case("footage.py:vae", "v5e:1x1"),
    Case("footage.py:dit", "v5e:1x1", vae="footage.py:vae"),
    Case("vae.py", "v5e:2x4", overrides=("optim.micro_batches=4",)),
    Case("dit.py:toy", "v5e:1x1"),
    Case("dit.py:S", "v5e:1x1", overrides=("optim.micro_batches=8",)),
    Case("dit.py:B", "v5e:1x1", overrides=("optim.micro_batches=16",)),
    Case("dit.py:L", "v5e:2x4", "fsdp=8", ("optim.micro_batches=4",)),
    Case("dit.py:XL", "v5e:2x4", "fsdp=8", ("optim.micro_batches=4",)),
    Case("dit.py:1.3b", "v5e:4x4", "fsdp=16", ("optim.micro_batches=4",)),
    Case("dit.py:14b", "v5p:4x4x4", "fsdp=16,context=4", ("model.remat=attention",)),
    Case("wan.py:1.3b", "v5e:4x4", "fsdp=16", ("optim.micro_batches=4",)),
    Case("wan.py:14b", "v5p:4x4x4", "fsdp=16,context=4", ("model.remat=attention",)),
    Case("wan.py:1.3b_tune", "v5e:4x4", "fsdp=16"),
    Case("wan.py:14b_tune", "v5p:4x4x4", "fsdp=16,context=4", ("model.remat=attention",)),
    Case("wan.py:1.3b_lora", "v5e:2x4", "fsdp=8", ("data.batch_size=8",)),
    Case("wan.py:14b_lora", "v5p:2x2x4", "fsdp=4,context=4", ("data.batch_size=4",)),
]


def plan(case: Case) -> Plan:
    """Compile the plan of a case."""
    run = load(str(ROOT / "configs" / case.config), [f"--config.{key}" for key in case.overrides])
    run = replace(run, mesh=parse_mesh(case.mesh))
    vae = load(str(ROOT / "configs" / case.vae)) if case.vae else None
    return compile_plan(run, Topology.parse(case.topology), vae=vae, name=case.config)


def row(case: Case, result: Plan) -> tuple[str, ...]:
    """Format the plan of a case as a row of the table."""
    used = f"{result.bytes_per_chip['total'] / 2**30:.1f} of {result.hbm_bytes / 2**30:.0f}"
    low, high = (f"{result.seconds[f'step_{end}']:.3g}" for end in ("full_overlap", "no_overlap"))
    return (
        f"`{case.config}`",
        str(result.batch),
        case.topology,
        ", ".join([format_mesh(result.mesh), *case.overrides]),
        used if result.fits else f"{used}: does not fit",
        f"{low} to {high}",
        f"{result.mfu['no_overlap']:.0%} to {result.mfu['full_overlap']:.0%}" if result.mfu else "-",
        f"{result.compile_seconds:.0f}",
    )


def main() -> None:
    """Print the table, each row as soon as its plan is compiled."""
    if unknown := set(sys.argv[1:]) - {case.config for case in CASES}:
        sys.exit(f"no case of {', '.join(sorted(unknown))}: there are {', '.join(case.config for case in CASES)}")
    cases = [case for case in CASES if not sys.argv[1:] or case.config in sys.argv[1:]]
    for cells in (HEAD, ("---",) * len(HEAD)):
        print(f"| {' | '.join(cells)} |")
    for case in cases:
        print(f"| {' | '.join(row(case, plan(case)))} |", flush=True)


if __name__ == "__main__":
    main()
