"""`videodit quickstart`: data, autoencoder, latents, transformer, samples and scores, each stage resumable."""

import argparse
import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from videodit.cli.exit_status import INTERRUPTED

if TYPE_CHECKING:
    from videodit.config.run import Run

EXAMPLES = """examples:
  videodit quickstart                           everything, into runs/quickstart
  videodit quickstart --workdir runs/again      the same elsewhere
  Ctrl-C stops it; the same command resumes where it stopped
"""
CONFIG = Path("configs/quickstart.py")
TRAIN_CLIPS, HELDOUT_CLIPS = 3000, 128


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "quickstart",
        parents=[common],
        help="run every stage on two CPU cores, in about ten minutes",
        description="Build a captioned video data set, train on it, sample, score, and leave a report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="file with the variants vae and dit")
    parser.add_argument("--clips", type=int, default=TRAIN_CLIPS, help=f"clips to train on (default: {TRAIN_CLIPS})")
    parser.add_argument(
        "--heldout-clips", type=int, default=HELDOUT_CLIPS, help=f"clips to score on (default: {HELDOUT_CLIPS})"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that build clips (default: 2)")
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    # XLA for CPU compiles in two thirds of the time, to equally fast programs. It reads the flag when it is loaded.
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"

    from videodit_data.toyworld import build

    from videodit.cli.data.progress import Bar
    from videodit.cli.data.tokenizer import train_tokenizer
    from videodit.config.io import load
    from videodit.evals.evaluate import evaluate, summarize
    from videodit.inference.encode.dataset import encode_dataset
    from videodit.inference.pipeline import Pipeline
    from videodit.train.run import run_training

    workdir, data = args.workdir, args.workdir / "data"
    vae = _move_paths(load(f"{args.config}:vae"), workdir)
    dit = _move_paths(load(f"{args.config}:dit"), workdir)

    console.rule("1/5  captioned clips")
    build_clips = functools.partial(
        build, level="easy", height=vae.data.height, width=vae.data.width, frames=vae.data.frames, fps=vae.data.fps
    )
    with Bar(console) as bar:
        build_clips(data / "train", clips=args.clips, seed=0, shards=4, processes=args.workers, progress=bar)
    with Bar(console) as bar:
        build_clips(data / "heldout", clips=args.heldout_clips, seed=1, progress=bar)
    if not Path(dit.tokenizer).exists():
        train_tokenizer(data / "train", Path(dit.tokenizer), dit.text.vocab_size)

    console.rule("2/5  autoencoder")
    if run_training(vae, workdir / "vae", console=console).interrupted_by:
        return INTERRUPTED

    console.rule("3/5  latents")
    for split in ("train", "heldout"):
        with Bar(console) as bar:
            # Eight times as precise as bfloat16, and these latents are well within its range.
            out = data / f"{split}-latents"
            encode_dataset(data / split, out, vae=workdir / "vae", dtype="float16", progress=bar)

    console.rule("4/5  transformer")
    if run_training(dit, workdir / "dit", console=console).interrupted_by:
        return INTERRUPTED

    console.rule("5/5  samples and scores")
    pipeline = Pipeline.load(workdir / "dit")
    scores = evaluate(pipeline, data / "heldout", workdir, clips=args.heldout_clips, seed=0, console=console)
    console.print(summarize(scores), highlight=False)
    console.print(f"report: {workdir / 'report.html'}", highlight=False)
    return 0


def _move_paths(run: "Run", workdir: Path) -> "Run":
    """Return the run with its paths below `workdir`, in place of those of the configuration file."""
    from videodit.config.run import DiTRun

    suffix = "-latents" if isinstance(run, DiTRun) else ""
    data = dataclasses.replace(
        run.data, path=str(workdir / "data" / f"train{suffix}"), eval_path=str(workdir / "data" / f"heldout{suffix}")
    )
    run = dataclasses.replace(run, data=data)
    if not isinstance(run, DiTRun):
        return run
    return dataclasses.replace(run, tokenizer=str(workdir / "data" / "tokenizer.model"), vae=str(workdir / "vae"))
