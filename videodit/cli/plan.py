"""`videodit plan`: whether a configuration fits a target topology, and how fast it can be there."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

if TYPE_CHECKING:
    from videodit.config.run import Run
    from videodit.plan.plan_report import Plan

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
        help="ask the TPU compiler what fits and how fast it can be, without a TPU",
        description="Compile a configuration's own programs for a target topology, and report what they need "
        "there; override any key of it with --config.KEY=VALUE.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="configuration file")
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="machine, like v5p:4x4x4")
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="sizes of data (the rest), fsdp, context, tensor")
    parser.add_argument("--batch", type=int, metavar="N", help="clips of a step, over all devices")
    parser.add_argument("--remat", help="what the backward pass keeps: none, dots, attention, full, offload")
    programs = ("train", "sample", "denoise", "decode", "vae")
    parser.add_argument("--what", choices=programs, default="train", help="program (default: train)")
    parser.add_argument("--vae", metavar="FILE.py[:VARIANT]", help="the autoencoder's (default: Wan's shape)")
    parser.add_argument("--search", action="store_true", help="try the meshes, remats and micro-batches worth trying")
    parser.add_argument("--most", type=int, default=6, metavar="N", help="programs that a search compiles (default: 6)")
    parser.add_argument("--price-per-chip-hour", type=float, metavar="P", help="say what the steps cost")
    parser.add_argument("--steps", type=int, metavar="N", help="steps to pay for; as configured if not given")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    parser.add_argument("--hlo", type=Path, metavar="FILE", help="also write the compiled program's HLO")
    parser.set_defaults(command=command, takes_overrides=True, overrides=[])


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit.config.io import load
    from videodit.plan.compile import compile_plan
    from videodit.plan.page import write_page
    from videodit.plan.search import search
    from videodit.plan.topology import Topology

    _check(args)
    run, topology = _run(args), Topology.parse(args.topology)
    vae = load(args.vae) if args.vae else None
    if vae is not None and vae.kind != "vae":
        raise ValueError(f"--vae {args.vae} is a configuration of kind '{vae.kind}': give that of an autoencoder")
    if args.price_per_chip_hour is not None and topology.chip is None:
        raise ValueError(f"nothing is known of the speed of {topology.name}: --price-per-chip-hour is for TPUs")
    if args.search:
        if args.what != "train" or args.mesh or args.remat or args.hlo:
            raise ValueError("--search chooses mesh and remat of training: give no --mesh, --remat, --hlo or --what")
        plans = search(run, topology, vae, name=args.config, most=args.most, message=_printer(console))
    else:
        with console.status(f"compiling for {topology.name}"):
            plans = [compile_plan(run, topology, args.what, vae, name=args.config, hlo=args.hlo)]
    if args.html:
        write_page(args.html, plans)
    described = [_describe(plan, args.price_per_chip_hour, args.steps or run.steps) for plan in plans]
    if args.json:
        print(json.dumps([fields for fields, _ in described] if args.search else described[0][0], indent=2))
    else:
        print("\n".join(_rank(plans, described[0][1]) if args.search else described[0][1]))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for mistakes that should not wait for a compiler."""
    for name, what in (("most", "programs"), ("steps", "steps"), ("price_per_chip_hour", "a price")):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}: it must be {what} above 0")
    for path in (args.html, args.hlo):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


def _describe(plan: "Plan", price: float | None, steps: int) -> tuple[dict[str, Any], list[str]]:
    """Return a plan as JSON and as lines, with what it costs if a price is given and the speed is known."""
    from videodit.plan.plan_report import lines

    fields, text = plan.to_json(), list(lines(plan))
    if price is not None and plan.seconds:
        least, most = plan.cost(price, steps)
        fields["cost"] = {"steps": steps, "full_overlap": least, "no_overlap": most}
        text.append(f"{steps} steps cost {least:,.0f} to {most:,.0f} at {price:g} a chip and hour")
    return fields, text


def _rank(plans: "Sequence[Plan]", best: Sequence[str]) -> Iterator[str]:
    """Yield the plans of a search, best first, then the lines of the best of them."""
    from videodit.plan.plan_report import overrides
    from videodit.plan.search import summary

    yield from (f"{rank}. {summary(plan)}" for rank, plan in enumerate(plans, 1))
    if not plans[0].fits:
        yield "none of these fits: take more chips, a smaller --batch, or bfloat16 moments (--config.optim.moments)"
        return
    yield ""
    yield from best
    yield f"best: {overrides(plans[0])}"


def _run(args: argparse.Namespace) -> "Run":
    """Load the configuration with what the options change of it."""
    from videodit.config.io import load
    from videodit.config.run import DiTRun
    from videodit.nn.stack import Remat
    from videodit.parallel.mesh import parse_mesh

    run = load(args.config, args.overrides)
    if args.mesh is not None:
        mesh = parse_mesh(args.mesh)
        run = replace(run, mesh=mesh if "ulysses" in args.mesh else replace(mesh, ulysses=run.mesh.ulysses))
    if args.batch is not None:
        run = replace(run, data=replace(run.data, batch_size=args.batch))
    if args.remat is not None:
        if not isinstance(run, DiTRun):
            raise ValueError("--remat is for transformers: an autoencoder's configuration has no such choice")
        if args.remat not in get_args(Remat):
            raise ValueError(f"--remat is one of {', '.join(get_args(Remat))}, not '{args.remat}'")
        run = replace(run, model=replace(run.model, remat=args.remat))
    return run
