"""`videodit plan`: memory, FLOPs and time of a configuration on a target topology."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from videodit.config.run import Run

EXAMPLES = """examples:
  videodit plan --config configs/wan.py:1.3b --topology v5e:2x2 --mesh fsdp=4 --batch 4
  videodit plan --config configs/dit.py:14b --topology v5p:4x4x4 --mesh fsdp=16,context=4 --remat attention --json
  videodit plan --config configs/wan.py:14b --topology v5p:8x8x8 --search --html plan.html
  videodit plan --config configs/dit.py:XL --topology 2*v6e:16x16 --mesh data=2,fsdp=256 --batch 512 --steps 400000 \\
    --price-per-chip-hour 2.7
topologies: CHIP:SHAPE of v4, v5e, v5p, v6e, tpu7x; N*CHIP:SHAPE for slices joined by DCN; cpu:N for fake devices
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "plan",
        parents=[common],
        help="compile for TPUs without a TPU: memory, FLOPs and time of a configuration",
        description="Compile a configuration's programs for a target topology and report memory, FLOPs and time; "
        "override any key with --config.KEY=VALUE.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="configuration file")
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="target topology, like v5p:4x4x4")
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="sizes of data (default: the rest), fsdp, context, tensor")
    parser.add_argument("--batch", type=int, metavar="N", help="clips per step, over all devices")
    parser.add_argument("--remat", help="remat policy: none, dots, attention, full, offload")
    programs = ("train", "sample", "denoise", "decode", "vae")
    parser.add_argument("--what", choices=programs, default="train", help="program (default: train)")
    parser.add_argument("--vae", metavar="FILE.py[:VARIANT]", help="the autoencoder's (default: Wan's shape)")
    parser.add_argument("--search", action="store_true", help="search for mesh, remat policy and micro-batches")
    parser.add_argument("--most", type=int, default=6, metavar="N", help="programs that a search compiles (default: 6)")
    parser.add_argument("--price-per-chip-hour", type=float, metavar="P", help="print the cost of the steps")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the cost (default: as configured)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write an HTML page")
    parser.add_argument("--hlo", type=Path, metavar="FILE", help="also write the compiled program's HLO")
    parser.set_defaults(command=command, takes_overrides=True, overrides=[])


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.boundary.terminal import escape_controls

    from videodit.config.io import load
    from videodit.plan import plan_report
    from videodit.plan.compile import compile_plan
    from videodit.plan.plan_page import write_page
    from videodit.plan.search import search
    from videodit.plan.topology import Topology

    _check(args)
    run, topology = _load_run(args), Topology.parse(args.topology)
    vae = load(args.vae) if args.vae else None
    if vae is not None and vae.kind != "vae":
        raise ValueError(f"--vae {args.vae} is a configuration of kind '{vae.kind}': pass that of an autoencoder")
    if args.price_per_chip_hour is not None and topology.chip is None:
        raise ValueError(f"the speed of {topology.name} is unknown: --price-per-chip-hour is for TPUs")
    if args.search:
        plans = search(run, topology, vae, name=args.config, most=args.most, message=_printer(console))
    else:
        with console.status(f"compiling for {topology.name}"):
            plans = [compile_plan(run, topology, args.what, vae, name=args.config, hlo=args.hlo)]
    if args.html:
        write_page(args.html, plans)
    price, steps = args.price_per_chip_hour, args.steps or run.steps
    if args.json:
        described = [plan_report.describe(plan, price, steps) for plan in plans]
        print(json.dumps(described if args.search else described[0], indent=2))
    elif args.search:
        print(escape_controls("\n".join(plan_report.format_ranking(plans, price, steps))))
    else:
        print(escape_controls("\n".join(plan_report.format_lines(plans[0], price, steps))))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for mistakes before anything is compiled; make the folders of output files."""
    for name, what in (("most", "programs"), ("steps", "steps"), ("price_per_chip_hour", "a price")):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}: it must be {what} above 0")
    if args.search and (args.what != "train" or args.mesh or args.remat or args.hlo):
        raise ValueError("--search chooses mesh and remat of training: pass no --mesh, --remat, --hlo or --what")
    for path in (args.html, args.hlo):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


def _load_run(args: argparse.Namespace) -> "Run":
    """Load the configuration with the changes of the options."""
    from videodit.config.io import load
    from videodit.plan.program import override_run

    return override_run(load(args.config, args.overrides), mesh=args.mesh, batch_size=args.batch, remat=args.remat)
