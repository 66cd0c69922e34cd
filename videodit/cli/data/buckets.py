"""`videodit data buckets`: how clips fall into buckets or packed sequences, before training."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from videodit.cli.data import bucket_options
from videodit.cli.number_options import SIZE, TOKENS


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("buckets", help="show how clips fall into buckets or packed sequences, before training")
    action.add_argument("dataset", type=Path, nargs="+")
    bucket_options.add_options(action, "sizes that clips are read at; latents have their own", "16")
    action.add_argument("--tokens", type=TOKENS, default=32768, help="tokens per batch at most (default: %(default)s)")
    stride = "of the VAE: frames, pixels (default: that of latents, 4 8 for videos)"
    action.add_argument("--stride", type=SIZE, nargs=2, metavar=("T", "S"), help=stride)
    packing = action.add_argument_group("packing", "sequences of one length that several clips share")
    packing.add_argument("--length", type=TOKENS, help="tokens of a packed sequence (default: no packing)")
    packing.add_argument("--clips", type=SIZE, help="clips of a sequence at most (default: 16)")
    packing.add_argument("--batch-size", type=SIZE, help="sequences of a batch (default: 8)")
    packing.add_argument("--look-ahead", type=SIZE, help="clips that a batch is filled from (default: 512)")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.boundary.terminal import SafeConsole
    from videodit_data.reading.bucket_stats import latent_stride, print_bucket_stats
    from videodit_data.reading.buckets import Buckets, TokenSize
    from videodit_data.reading.mixture import WeightedDataset
    from videodit_data.reading.packing import Packing
    from videodit_data.reading.reader_config import ReaderConfig

    paths = [str(path) for path in args.dataset]
    of_latents = latent_stride(paths)
    time, space = _choose_stride(args.stride, of_latents)
    options = bucket_options.parse_options(args)
    if of_latents and options:
        option = next(iter(options.to_dict())).replace("_", "-")
        raise ValueError(f"--{option} is for videos; latents keep the sizes that they were encoded at.")
    buckets = Buckets(tokens=args.tokens, token=TokenSize(time, 2 * space))
    if of_latents:  # which have sizes of their own, and whose VAE may not encode the default lengths
        buckets = replace(buckets, frames=(1,))
    shapes = buckets = options.apply(buckets) if options else buckets
    limits = {name: getattr(args, name) for name in ("clips", "look_ahead") if getattr(args, name) is not None}
    if args.length is not None:
        shapes = replace(Packing(args.length, stride=(time, space), buckets=buckets), **limits)
    elif limits or args.batch_size is not None:
        raise ValueError("--batch-size, --clips and --look-ahead go with --length, the tokens of a packed sequence.")
    batch_size = 8 if args.batch_size is None else args.batch_size
    print_bucket_stats(ReaderConfig(tuple(map(WeightedDataset, paths)), shapes, batch_size), SafeConsole())
    return 0


def _choose_stride(option: Sequence[int] | None, of_latents: tuple[int | None, int] | None) -> tuple[int, int]:
    """Return frames and pixels of a latent position; ValueError if the option differs from the latents' stride."""
    time, space = of_latents or (None, 8)
    default = 4 if time is None else time, space
    if option is None:
        return default
    if of_latents is not None and (option[1] != space or time not in (None, option[0])):
        raise ValueError(
            f"These latents are of a VAE of --stride {default[0]} {default[1]}, not {option[0]} {option[1]}."
        )
    return option[0], option[1]
