"""The options of commands for the shapes that clips are taken in: fields of `Buckets`."""

import argparse
from typing import Any


def add_options(action: argparse.ArgumentParser, what: str, fps: str, else_: str = "") -> None:
    """Fields of `Buckets`, as tuples; None where they are not given."""

    def some(default: str) -> str:
        return f" (default: {default}{else_})"

    group = action.add_argument_group("buckets", what)
    several = {"type": _integers, "metavar": "N,..."}
    resolutions = f"256 means about 256 x 256 pixels, whatever the aspect{some('256,512')}"
    group.add_argument("--resolutions", **several, help=resolutions)
    ratios = f"width to height, like 16:9,1:1{some('9:16,3:4,1:1,4:3,16:9')}"
    group.add_argument("--aspects", type=_ratios, metavar="X:Y,...", help=ratios)
    lengths = f"lengths, each 1 + 4k; 1 is that of images{some('1,17,33,49,81')}"
    group.add_argument("--frames", **several, help=lengths)
    group.add_argument("--fps", type=float, help=f"frames per second that clips are served at (default: {fps})")
    group.add_argument("--max-upscale", type=float, help="how far a clip may be enlarged (default: 1, not at all)")


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not whole numbers with commas between, like 17,33") from None


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(_ratio, text.split(",")))
    except (ValueError, ZeroDivisionError):
        sentence = f"'{text}' is not ratios of width to height with commas between, like 16:9,1:1"
        raise argparse.ArgumentTypeError(sentence) from None


def _ratio(text: str) -> float:
    width, colon, height = text.partition(":")
    return float(width) / (float(height) if colon else 1)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """Those that are given, by the names of their fields."""
    fields = {
        "resolutions": args.resolutions,
        "aspects": args.aspects,
        "frames": args.frames,
        "fps": args.fps,
        "max_upscale": args.max_upscale,
    }
    return {name: value for name, value in fields.items() if value is not None}
