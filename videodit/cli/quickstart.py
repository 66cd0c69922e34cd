"""`videodit quickstart`: data, autoencoder, latents, transformer, samples and scores, each stage resumable."""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from videodit.train.config import Run

EXAMPLES = """examples:
  videodit quickstart                           everything, into runs/quickstart
  videodit quickstart --workdir runs/again      the same elsewhere
  Ctrl-C stops it; the same command goes on where it stopped
"""
CONFIG = Path("configs/quickstart.py")
TRAIN_CLIPS, HELDOUT_CLIPS = 3000, 128


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "quickstart",
        parents=[common],
        help="the whole way on two CPU cores, in about ten minutes",
        description="Build a captioned video data set, train on it, sample, score, and leave a report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="file with the variants vae and dit")
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    # XLA for CPU compiles in two thirds of the time, and what it makes runs as fast. It reads this when it is loaded.
    os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"

    from videodit_data.toyworld import build

    from videodit.cli.coding.encode import encode_dataset
    from videodit.cli.data.progress import Bar
    from videodit.cli.data.tokenizer import train_tokenizer
    from videodit.cli.evaluate import evaluate, summary
    from videodit.cli.main import INTERRUPTED
    from videodit.cli.pipeline import Pipeline
    from videodit.cli.train import train_run
    from videodit.train.config_io import load

    workdir, data = args.workdir, args.workdir / "data"
    vae = _placed(load(f"{args.config}:vae"), workdir)
    dit = _placed(load(f"{args.config}:dit"), workdir)

    console.rule("1/5  captioned clips")
    size = {"height": vae.data.height, "width": vae.data.width, "frames": vae.data.frames, "fps": vae.data.fps}
    with Bar(console) as bar:
        build(data / "train", clips=TRAIN_CLIPS, level="easy", seed=0, shards=4, processes=2, progress=bar, **size)
    with Bar(console) as bar:
        build(data / "heldout", clips=HELDOUT_CLIPS, level="easy", seed=1, progress=bar, **size)
    if not Path(dit.tokenizer).exists():
        train_tokenizer(data / "train", Path(dit.tokenizer), dit.text.vocab_size)

    console.rule("2/5  autoencoder")
    if train_run(vae, workdir / "vae", console).interrupted_by:
        return INTERRUPTED

    console.rule("3/5  latents")
    for split in ("train", "heldout"):
        with Bar(console) as bar:
            # Eight times finer than bfloat16 at the same size, and these latents are far within its range.
            out = data / f"{split}-latents"
            encode_dataset(data / split, out, vae=workdir / "vae", dtype="float16", progress=bar)

    console.rule("4/5  transformer")
    if train_run(dit, workdir / "dit", console).interrupted_by:
        return INTERRUPTED

    console.rule("5/5  samples and scores")
    pipeline = Pipeline.load(workdir / "dit")
    metrics = evaluate(pipeline, data / "heldout", workdir, clips=HELDOUT_CLIPS, seed=0, console=console)
    console.print(summary(metrics), highlight=False)
    console.print(f"report: {workdir / 'report.html'}", highlight=False)
    return 0


def _placed(run: "Run", workdir: Path) -> "Run":
    """The run with its paths below `workdir`, instead of where the configuration file puts them."""
    from videodit.train.config import DiTRun

    suffix = "-latents" if isinstance(run, DiTRun) else ""
    data = dataclasses.replace(
        run.data, path=str(workdir / "data" / f"train{suffix}"), eval_path=str(workdir / "data" / f"heldout{suffix}")
    )
    paths = {"tokenizer": str(workdir / "data" / "tokenizer.model"), "vae": str(workdir / "vae")} if suffix else {}
    return dataclasses.replace(run, data=data, **paths)
