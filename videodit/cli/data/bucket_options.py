"""The options of commands for buckets: the sizes, lengths and rate of clips."""

import argparse
from typing import TYPE_CHECKING

from videodit.cli.number_options import FPS, SIZE, Number
from videodit.ranges import Range

if TYPE_CHECKING:
    from videodit.inference.encode.bucket_options import BucketOptions

UPSCALE, SIDE, RATIO = Number(float, Range(1, 1e6)), Number(float, Range(1e-3, 1e6)), Range(1e-3, 1e3)


def add_options(action: argparse.ArgumentParser, description: str, fps: str, condition: str = "") -> None:
    """Add an option for each field of `BucketOptions`.

    Args:
        fps: the default rate, for help.
        condition: when defaults apply, for help.
    """

    def default(value: str) -> str:
        return f" (default: {value}{condition})"

    group = action.add_argument_group("buckets", description)
    resolutions = f"resolutions; 256 is about 256 x 256 pixels{default('256,512')}"
    group.add_argument("--resolutions", type=_parse_integers, metavar="N,...", help=resolutions)
    ratios = f"width to height, like 16:9,1:1{default('9:16,3:4,1:1,4:3,16:9')}"
    group.add_argument("--aspects", type=_parse_ratios, metavar="X:Y,...", help=ratios)
    lengths = f"lengths, each 1 + 4k; 1 is that of images{default('1,17,33,49,81')}"
    group.add_argument("--frames", type=_parse_integers, metavar="N,...", help=lengths)
    group.add_argument("--fps", type=FPS, help=f"frames per second of clips (default: {fps})")
    group.add_argument("--max-upscale", type=UPSCALE, help="largest factor that clips are enlarged by (default: 1)")


def parse_options(args: argparse.Namespace) -> "BucketOptions | None":
    """Return the bucket options of a command, None if there are none."""
    from videodit.inference.encode.bucket_options import BucketOptions

    options = BucketOptions(
        resolutions=args.resolutions,
        aspects=args.aspects,
        frames=args.frames,
        fps=args.fps,
        max_upscale=args.max_upscale,
    )
    return options if options.to_dict() else None


def _parse_integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(SIZE, text.split(",")))
    except argparse.ArgumentTypeError as error:
        message = f"'{text:.80}' is not whole numbers with commas between, like 17,33: {error}"
        raise argparse.ArgumentTypeError(message) from None


def _parse_ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(_parse_ratio, text.split(",")))
    except argparse.ArgumentTypeError as error:
        message = f"'{text:.80}' is not ratios of width to height with commas between, like 16:9,1:1: {error}"
        raise argparse.ArgumentTypeError(message) from None


def _parse_ratio(text: str) -> float:
    width, colon, height = text.partition(":")
    ratio = SIDE(width) / (SIDE(height) if colon else 1)
    if ratio not in RATIO:
        raise argparse.ArgumentTypeError(f"a ratio is {RATIO}")
    return ratio
