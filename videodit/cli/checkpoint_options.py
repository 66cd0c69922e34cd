"""The options of commands that read a checkpoint."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser, workdir: str) -> None:
    """Add `--checkpoint`, whose help is `workdir`, `--step`, `--strict` and `--weights`."""
    parser.add_argument("--checkpoint", type=Path, required=True, help=workdir)
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the last that is not damaged)")
    parser.add_argument("--strict", action="store_true", help="fail if the last checkpoint is damaged")
    parser.add_argument(
        "--weights",
        choices=("ema", "params"),
        default="ema",
        help="EMA weights or the parameters (default: %(default)s)",
    )
