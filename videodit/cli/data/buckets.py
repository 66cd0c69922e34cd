"""`videodit data buckets`: what shapes and packing make of data sets, before training."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from videodit.cli.data import shapes


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("buckets", help="what shapes and packing make of data sets, before training")
    action.add_argument("dataset", type=Path, nargs="+")
    shapes.add_options(action, "shapes that clips are served in; latents have their own", "16")
    action.add_argument("--tokens", type=int, default=32768, help="of a batch at most (default: %(default)s)")
    stride = "of the VAE: frames, pixels (default: that of latents, 4 8 for videos)"
    action.add_argument("--stride", type=int, nargs=2, metavar=("T", "S"), help=stride)
    packing = action.add_argument_group("packing", "rows of one length that several clips share")
    packing.add_argument("--length", type=int, help="tokens of a row; not packed if not given")
    packing.add_argument("--clips", type=int, help="of a row at most (default: 16)")
    packing.add_argument("--rows", type=int, help="of a batch (default: 8)")
    packing.add_argument("--look-ahead", type=int, help="clips that a batch is filled from (default: 512)")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.reading.bucket_stats import latent_stride, print_bucket_stats
    from videodit_data.reading.buckets import Buckets, TokenSize
    from videodit_data.reading.mixture import WeightedDataset
    from videodit_data.reading.packing import Packing
    from videodit_data.reading.reader_config import ReaderConfig

    paths = [str(path) for path in args.dataset]
    coded = latent_stride(paths)
    time, space = _stride(args.stride, coded)
    asked = shapes.given(args)
    if coded and asked:
        raise ValueError(f"--{next(iter(asked))} is for videos; latents keep the shapes that they were coded in.")
    own = {"frames": (1,)} if coded else {}  # latents have their shapes, and their VAE may not take the usual lengths
    buckets = Buckets(**own | asked, tokens=args.tokens, token=TokenSize(time, 2 * space))
    served, how = (
        buckets,
        {name: getattr(args, name) for name in ("clips", "look_ahead") if getattr(args, name) is not None},
    )
    served = buckets
    if args.length is not None:
        served = Packing(args.length, **how, stride=(time, space), buckets=buckets)
    elif how or args.rows is not None:
        raise ValueError("--rows, --clips and --look-ahead go with --length, the tokens of a row; without it, no rows.")
    rows = 8 if args.rows is None else args.rows
    print_bucket_stats(ReaderConfig(tuple(map(WeightedDataset, paths)), served, rows), Console())
    return 0


def _stride(given: Sequence[int] | None, coded: tuple[int | None, int] | None) -> tuple[int, int]:
    """Frames and pixels of a latent position. ValueError when those given are not those of the latents."""
    time, space = coded or (None, 8)
    own = 4 if time is None else time, space
    if given is None:
        return own
    if min(given) < 1:
        raise ValueError(f"--stride is at least 1 frame and 1 pixel, not {given[0]} {given[1]}.")
    if coded is not None and (given[1] != space or time not in (None, given[0])):
        raise ValueError(f"These latents are of a VAE of --stride {own[0]} {own[1]}, not {given[0]} {given[1]}.")
    return given[0], given[1]
