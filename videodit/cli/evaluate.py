"""`videodit eval`: score samples for held-out prompts; writes metrics.json and an HTML report."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from videodit.cli import sampler_options

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
    sampler_options.add_options(parser)
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
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.storage.whole_file import check_creatable

    from videodit.evals.evaluate import evaluate, summarize
    from videodit.inference.pipeline import Pipeline

    conditions = sampler_options.parse_conditions(args)
    sampler_options.check_sampler(args)
    check_creatable(args.out / "metrics.json", is_file=True)
    pipeline = Pipeline.load(args.checkpoint, weights=args.weights, step=args.step, strict=args.strict)
    scores = evaluate(
        pipeline,
        args.data,
        args.out,
        clips=args.clips,
        seed=args.seed,
        console=console,
        sampler=pipeline.run.sampler.override(steps=args.steps, solver=args.solver, guidance=args.guidance),
        conditions=conditions,
        metrics=args.metrics.split(","),
    )
    console.print(summarize(scores), highlight=False)
    return 0
