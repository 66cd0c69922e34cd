"""The option for values of a model's further inputs."""

import argparse


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--condition`."""
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=NUMBER[,...]",
        help="value of a further input that the model was trained with; may be given several times",
    )


def parse_conditions(args: argparse.Namespace) -> dict[str, float | list[float]]:
    """Return the values by name; ValueError for what is not NAME=NUMBER or NAME=NUMBER,NUMBER,..."""
    return dict(map(_parse_condition, args.condition))


def _parse_condition(text: str) -> tuple[str, float | list[float]]:
    name, _, value = text.partition("=")
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        raise ValueError(f"--condition is NAME=NUMBER or NAME=NUMBER,NUMBER,..., not '{text}'") from None
    return name, numbers if "," in value else numbers[0]
