"""`videodit train`: a configuration, its data and a workdir to a trained model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from videodit.cli import processes

if TYPE_CHECKING:
    from videodit.train.config import Run
    from videodit.train.loop import Outcome

EXAMPLES = """examples:
  videodit train --config configs/quickstart.py:vae --workdir runs/vae
  videodit train --config configs/quickstart.py:dit --workdir runs/dit --config.model.depth=12
  videodit train --config configs/dit.py:XL --workdir runs/xl --distributed      (on every host of a TPU pod)
  the same command goes on with an interrupted run, bit for bit
"""
LATENT_CLIPS = 256  # of which the latents are measured


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
    parser.add_argument("--workdir", required=True, type=Path, help="where checkpoints, metrics and pictures go")
    parser.add_argument(
        "--init", type=Path, metavar="WORKDIR", help="trained transformer to begin with (import, train)"
    )
    processes.add_options(parser)
    parser.set_defaults(command=command, takes_overrides=True, overrides=[])


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit.parallel.distributed import is_first
    from videodit.train.config_io import load

    processes.join_if_asked(args)
    outcome = train_run(load(args.config, args.overrides), args.workdir, console, args.init)
    if is_first() and not outcome.interrupted_by:
        console.print(f"trained to step {outcome.step}: {args.workdir}", highlight=False)
    return 0


def train_run(run: "Run", workdir: Path, console: Console, init: Path | None = None) -> "Outcome":
    """Opens the data of a run, and its autoencoder if it needs one, and trains it to its last step.

    The latents of a trained autoencoder are measured then, on training clips, for transformers to come.

    Args:
        init: workdir of a trained transformer, whose weights it begins with; tokenizer, autoencoder and text encoder
            are looked for there first.

    Raises:
        ValueError: when a data set, tokenizer or autoencoder is missing or does not fit the run.
    """
    from videodit.cli import feeding
    from videodit.cli.models import measure_latents, task_of, tokenizer_of, trained_weights
    from videodit.train.loop import multiple, rows_here, train
    from videodit.train.workdir import placed

    begin = None
    if init is not None:
        if run.kind != "dit":
            raise ValueError("--init is for transformers: an autoencoder begins from scratch")
        run = placed(run, init)
        begin = trained_weights(init, run)
    rows, size, texts = rows_here(run), multiple(run), feeding.texts(run, tokenizer_of(run))
    config, kept = feeding.training(run, size), feeding.held_out(run, size)
    evaluation = None if kept is None else feeding.Passes(kept, texts, run.data.eval_clips, rows)
    loader = feeding.BatchIterator(config, texts, rows=rows)
    try:
        task = task_of(run, feeding.data_sets(run), texts("") if isinstance(texts, feeding.CachedText) else None)
        outcome = train(run, task, loader, evaluation, workdir, console=console, begin=begin)
    finally:
        loader.close()
    if run.kind == "vae" and not outcome.interrupted_by:
        measure_latents(workdir, feeding.Passes(config.evaluation(), texts, LATENT_CLIPS))
    return outcome
