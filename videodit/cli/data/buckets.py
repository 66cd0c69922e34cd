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
    packing = action.add_argument_group("packing", "sequences of one length that several clips share")
    packing.add_argument("--length", type=int, help="tokens of a packed sequence; not packed if not given")
    packing.add_argument("--clips", type=int, help="of a packed sequence at most (default: 16)")
    packing.add_argument("--batch-size", type=int, help="packed sequences of a batch (default: 8)")
    packing.add_argument("--look-ahead", type=int, help="clips that a batch is filled from (default: 512)")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.reading.bucket_stats import latent_stride, print_bucket_stats
    from videodit_data.reading.buckets import Buckets, TokenSize
    from videodit_data.reading.mixture import WeightedDataset
    from videodit_data.reading.packing import Packing
    from videodit_data.reading.reader_config import ReaderConfig

    paths = [str(path) for path in args.dataset]
    encoded = latent_stride(paths)
    time, space = _stride(args.stride, encoded)
    chosen = shapes.given(args)
    if encoded and chosen:
        option = next(iter(chosen)).replace("_", "-")
        raise ValueError(f"--{option} is for videos; latents keep the shapes that they were encoded in.")
    own = {"frames": (1,)} if encoded else {}  # latents have their shapes, and their VAE may not take the usual lengths
    buckets = Buckets(**own | chosen, tokens=args.tokens, token=TokenSize(time, 2 * space))
    options = {name: getattr(args, name) for name in ("clips", "look_ahead") if getattr(args, name) is not None}
    served = buckets
    if args.length is not None:
        served = Packing(args.length, **options, stride=(time, space), buckets=buckets)
    elif options or args.batch_size is not None:
        raise ValueError("--batch-size, --clips and --look-ahead go with --length, the tokens of a packed sequence.")
    batch_size = 8 if args.batch_size is None else args.batch_size
    print_bucket_stats(ReaderConfig(tuple(map(WeightedDataset, paths)), served, batch_size), Console())
    return 0


def _stride(chosen: Sequence[int] | None, encoded: tuple[int | None, int] | None) -> tuple[int, int]:
    """Frames and pixels of a latent position. ValueError when those given are not those of the latents."""
    time, space = encoded or (None, 8)
    own = 4 if time is None else time, space
    if chosen is None:
        return own
    if min(chosen) < 1:
        raise ValueError(f"--stride is at least 1 frame and 1 pixel, not {chosen[0]} {chosen[1]}.")
    if encoded is not None and (chosen[1] != space or time not in (None, chosen[0])):
        raise ValueError(f"These latents are of a VAE of --stride {own[0]} {own[1]}, not {chosen[0]} {chosen[1]}.")
    return chosen[0], chosen[1]
