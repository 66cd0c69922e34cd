"""`videodit data toyworld`: generate captioned clips with ground truth."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli.data.progress import Bar
from videodit.cli.number_options import FPS, SEED, SIZE, WORKERS


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("toyworld", help="generate captioned clips with ground truth")
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    action.add_argument("--clips", type=SIZE, default=1000)
    action.add_argument("--level", default="easy", help="easy, medium or hard")
    action.add_argument("--seed", type=SEED, default=0)
    action.add_argument("--height", type=SIZE, default=64)
    action.add_argument("--width", type=SIZE, default=64)
    action.add_argument("--frames", type=SIZE, default=9)
    action.add_argument("--fps", type=FPS, default=8.0)
    action.add_argument("--processes", type=WORKERS, default=2)
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.toyworld import build

    with Bar(console) as bar:
        build(
            args.out,
            clips=args.clips,
            level=args.level,
            seed=args.seed,
            height=args.height,
            width=args.width,
            frames=args.frames,
            fps=args.fps,
            processes=args.processes,
            shards=-(-args.clips // 1024),
            progress=bar,
        )
    return 0
