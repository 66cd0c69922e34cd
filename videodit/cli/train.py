"""`videodit train`: train a model of a configuration in a workdir."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from videodit.cli import processes

EXAMPLES = """examples:
  videodit train --config configs/quickstart.py:vae --workdir runs/vae
  videodit train --config configs/quickstart.py:dit --workdir runs/dit --config.model.depth=12
  videodit train --config configs/dit.py:XL --workdir runs/xl --distributed      (on every host of a TPU pod)
  the same command resumes an interrupted run, bit for bit
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "train",
        parents=[common],
        help="train an autoencoder or a transformer",
        description="Train what a configuration file describes; override any key of it with --config.KEY=VALUE.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="configuration file")
    parser.add_argument("--workdir", required=True, type=Path, help="directory of checkpoints, metrics and samples")
    parser.add_argument(
        "--init", type=Path, metavar="WORKDIR", help="initialize from a trained or imported transformer"
    )
    parser.add_argument("--strict", action="store_true", help="fail if the last checkpoint is damaged")
    processes.add_options(parser)
    parser.set_defaults(command=command, takes_overrides=True, overrides=[])


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit.config.io import load
    from videodit.parallel.distributed import is_main_process
    from videodit.train.run import run_training

    processes.join_if_requested(args)
    run = load(args.config, args.overrides)
    outcome = run_training(run, args.workdir, console=console, init=args.init, strict=args.strict)
    if is_main_process() and not outcome.interrupted_by:
        console.print(f"trained to step {outcome.step}: {args.workdir}", highlight=False)
    return 0
