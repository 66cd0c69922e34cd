"""`videodit data encode`: clips as latents and captions as embeddings, once."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli import processes
from videodit.cli.data import bucket_options
from videodit.cli.data.progress import Bar
from videodit.cli.number_options import SIZE


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("encode", help="encode clips as latents and captions as embeddings, once")
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    action.add_argument("--vae", type=Path, help="workdir of the autoencoder (default: clips are copied)")
    action.add_argument("--text", type=Path, help="directory of a text encoder, which training does not need then")
    action.add_argument("--tokenizer", type=Path, help="its sentencepiece model, if not in that directory or above")
    action.add_argument("--text-length", type=SIZE, default=512, help="tokens per caption, as data.text_length")
    action.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="stored type")
    action.add_argument("--crops", type=SIZE, default=1, help="different windows of each clip, each a clip of its own")
    every = "encode a clip at each of --resolutions that it fits, not only at the best"
    action.add_argument("--every-resolution", action="store_true", help=every)
    bucket_options.add_options(
        action,
        "encode clips in the best of several sizes, not all at the size that the VAE was trained at",
        "the VAE's",
        ", with any of these options",
    )
    processes.add_options(action)
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    processes.join_if_requested(args)

    from videodit.inference.encode.clip_crops import CropConfig
    from videodit.inference.encode.dataset import encode_dataset
    from videodit.inference.encode.embeddings import TextSource
    from videodit.parallel.distributed import guard_peer_failures

    text = args.text and TextSource(args.text, args.tokenizer, args.text_length)
    crops = CropConfig(bucket_options.parse_options(args), args.every_resolution, args.crops)
    with Bar(console) as bar, guard_peer_failures():
        encode_dataset(args.dataset, args.out, vae=args.vae, text=text, crops=crops, dtype=args.dtype, progress=bar)
    return 0
