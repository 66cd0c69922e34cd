"""`videodit eval`: score samples for held-out prompts; writes metrics.json and an HTML report."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from videodit.cli import conditions

EXAMPLES = """examples:
  videodit eval --checkpoint runs/quickstart/dit --data runs/quickstart/data/heldout --out runs/quickstart
  videodit eval --checkpoint runs/quickstart/dit --data data/toy --out scores --clips 256 --guidance 4
  videodit eval --checkpoint runs/quickstart/dit --data data/toy --out scores --metrics toyworld,my_package.fvd:FVD
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "eval",
        parents=[common],
        help="score samples for held-out prompts",
        description="Generate clips for the captions of a data set and score them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="workdir of a transformer")
    parser.add_argument("--data", type=Path, required=True, help="held-out data set; of the toy world for its oracle")
    parser.add_argument("--out", type=Path, required=True, help="directory of metrics.json, report.html and samples/")
    parser.add_argument(
        "--clips",
        type=int,
        default=64,
        help="number of prompts: the first captions of as many clips (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics",
        default="reconstruction,toyworld",
        metavar="NAME,...",
        help="names, or MODULE:CLASS of your own (default: %(default)s)",
    )
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the last)")
    parser.add_argument("--weights", choices=("ema", "params"), default="ema")
    parser.add_argument("--steps", type=int, help="solver steps (default: as configured)")
    parser.add_argument("--solver", help="unipc, unipc_bh1, dpmpp, euler or heun (default: as configured)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance scale (default: as configured)")
    parser.add_argument("--seed", type=int, default=0)
    conditions.add_option(parser)
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit.evals.evaluate import evaluate, summarize
    from videodit.inference.pipeline import Pipeline

    pipeline = Pipeline.load(args.checkpoint, weights=args.weights, step=args.step)
    scores = evaluate(
        pipeline,
        args.data,
        args.out,
        clips=args.clips,
        seed=args.seed,
        console=console,
        sampler=pipeline.run.sampler.override(steps=args.steps, solver=args.solver, guidance=args.guidance),
        conditions=conditions.parse_conditions(args),
        metrics=args.metrics.split(","),
    )
    console.print(summarize(scores), highlight=False)
    return 0
