"""`videodit data caption`: caption clips with a vision-language model."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli.data import captioner_options
from videodit.cli.data.progress import Bar
from videodit.cli.exit_status import NO_RESULT
from videodit.cli.number_options import SIZE

EXAMPLES = """examples:
  videodit data caption data/footage --out data/captioned --endpoint http://localhost:8000 --model NAME
  videodit data caption data/footage --out data/captioned --endpoint https://api.example.com --model NAME \\
    --key-env API_KEY --per-minute 60 --concurrency 8 --lengths short,long --keep none
  videodit data caption data/footage --out data/captioned --captioner mymodule:caption --batch 8
  Ctrl-C stops it; the same command resumes without repeating requests that were answered
"""


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add(
        "caption",
        help="have a model caption a data set",
        description="Make a data set of the same videos with captions by a model that looks at their frames.",
        epilog=EXAMPLES,
    )
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    captioner_options.add_options(action)
    action.add_argument("--lengths", default="short,medium,long", help="captions of each clip (default: %(default)s)")
    action.add_argument(
        "--keep",
        choices=("before", "after", "none"),
        default="after",
        help="where the present captions of a clip go: before the new ones, after (default), or none",
    )
    action.add_argument("--frames", type=SIZE, default=8, help="frames of a clip for the model (default: %(default)s)")
    action.add_argument("--side", type=SIZE, default=512, help="pixels of their longer side (default: %(default)s)")
    action.add_argument("--reuse", type=Path, metavar="DATASET", help="reuse the captions of this earlier result")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.captioning.lengths import parse_lengths
    from videodit_data.captioning.look import Look
    from videodit_data.captioning.stage import caption_dataset, summarize

    lengths = parse_lengths(args.lengths)
    captioner, identity = captioner_options.parse_captioner(args)
    # The answers of an endpoint are stored one by one; a callable gets batches.
    batch, threads = (1, args.concurrency) if args.endpoint else (args.batch, 1)
    with Bar(console) as bar:
        manifest = caption_dataset(
            args.dataset,
            args.out,
            captioner,
            identity,
            lengths=lengths,
            keep=args.keep,
            look=Look(args.frames, args.side),
            batch=batch,
            threads=threads,
            hopeless=args.dead_after,
            reuse=args.reuse,
            progress=bar,
        )
    console.print(summarize(manifest, args.out), markup=False, highlight=False, soft_wrap=True)
    if manifest.info["captions"]["captioned"]:
        return 0
    console.print(f"when the captioner works, run again with --reuse {args.out} and another --out", soft_wrap=True)
    return NO_RESULT
