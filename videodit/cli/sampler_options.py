"""The options of commands that sample: checkpoint, solver, seed, and values of a model's further inputs."""

import argparse
import math

from videodit.cli import checkpoint_options
from videodit.cli.number_options import SEED


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the checkpoint, the sampler and the conditions."""
    checkpoint_options.add_options(parser, "workdir of a transformer")
    parser.add_argument("--steps", type=int, help="solver steps (default: as configured)")
    parser.add_argument("--solver", help="unipc, unipc_bh1, dpmpp, euler or heun (default: as configured)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance scale (default: as configured)")
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=NUMBER[,...]",
        help="value of a further input that the model was trained with; may be given several times",
    )


def check_sampler(args: argparse.Namespace) -> None:
    """Check solver, steps and guidance before a model is loaded; ValueError names the one that no sampler can have."""
    from videodit.diffusion.sample import SamplerConfig

    SamplerConfig().override(steps=args.steps, solver=args.solver, guidance=args.guidance)


def parse_conditions(args: argparse.Namespace) -> dict[str, float | list[float]]:
    """Return the values by name; ValueError for what is not NAME=NUMBER or NAME=NUMBER,NUMBER,..."""
    return dict(map(_parse_condition, args.condition))


def _parse_condition(text: str) -> tuple[str, float | list[float]]:
    name, _, value = text.partition("=")
    try:
        numbers = [float(part) for part in value.split(",")]
        if not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        raise ValueError(f"--condition is NAME=NUMBER or NAME=NUMBER,NUMBER,..., not '{text}'") from None
    return name, numbers if "," in value else numbers[0]
