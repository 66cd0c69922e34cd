"""`videodit data caption`: caption clips with a vision-language model."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from videodit.cli.data.progress import Bar
from videodit.cli.exit_status import NO_RESULT

if TYPE_CHECKING:
    from videodit_data.captioning.captioner import Captioner, Identity
    from videodit_data.storage.manifest import Manifest

EXAMPLES = """examples:
  videodit data caption data/footage --out data/captioned --endpoint http://localhost:8000 --model NAME
  videodit data caption data/footage --out data/captioned --endpoint https://api.example.com --model NAME \\
    --key-env API_KEY --per-minute 60 --concurrency 8 --lengths short,long --keep none
  videodit data caption data/footage --out data/captioned --captioner mymodule:caption --batch 8
  Ctrl-C stops it; the same command resumes without repeating requests
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
    by = action.add_mutually_exclusive_group(required=True)
    by.add_argument("--endpoint", metavar="URL", help="server with an OpenAI-style chat API that takes images")
    by.add_argument(
        "--captioner", metavar="MODULE:FUNCTION", help="your own: see videodit_data/captioning/captioner.py"
    )
    action.add_argument("--lengths", default="short,medium,long", help="captions of each clip (default: %(default)s)")
    action.add_argument(
        "--keep",
        choices=("before", "after", "none"),
        default="after",
        help="where the present captions of a clip go: before the new ones, after (default), or none",
    )
    action.add_argument("--frames", type=int, default=8, help="frames of a clip for the model (default: %(default)s)")
    action.add_argument("--side", type=int, default=512, help="pixels of their longer side (default: %(default)s)")
    action.add_argument("--reuse", type=Path, metavar="DATASET", help="reuse the captions of this earlier result")
    action.add_argument("--batch", type=int, default=8, help="clips of one call of --captioner (default: %(default)s)")
    dead = "failed requests in a row, or failed clips before a good one, that end the run (default: %(default)s)"
    action.add_argument("--dead-after", type=int, default=12, metavar="N", help=dead)
    group = action.add_argument_group("endpoint")
    group.add_argument("--model", help="name of the model there")
    group.add_argument("--key-env", metavar="NAME", help="environment variable that holds the key")
    group.add_argument("--concurrency", type=int, default=4, help="requests in flight (default: %(default)s)")
    group.add_argument("--per-minute", type=float, help="requests per minute at most (default: no limit)")
    group.add_argument("--attempts", type=int, default=5, help="at a clip (default: %(default)s)")
    group.add_argument("--deadline", type=float, default=120, help="seconds of a request (default: %(default)s)")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.captioning.lengths import parse_lengths
    from videodit_data.captioning.look import Look
    from videodit_data.captioning.stage import caption_dataset

    lengths = parse_lengths(args.lengths)
    captioner, identity = _captioner(args)
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


def summarize(manifest: "Manifest", out: Path) -> str:
    """Return how many clips have new captions, and why others do not."""
    info = manifest.info["captions"]
    failed = ", ".join(f"{count} {reason}" for reason, count in info["failed"].items())
    named = f"; the others keep their captions ({failed}), listed in {out / 'captioning.jsonl'}" if failed else ""
    return f"{info['captioned']} of {manifest.clips} clips captioned{named}"


def _captioner(args: argparse.Namespace) -> "tuple[Captioner, Identity]":
    from videodit_data.captioning.captioner import load
    from videodit_data.captioning.endpoint import Endpoint, EndpointConfig

    if args.captioner is not None:
        return load(args.captioner)
    if args.model is None:
        raise ValueError("--endpoint goes with --model, the name of the model there")
    config = EndpointConfig(
        args.endpoint,
        args.model,
        key_env=args.key_env,
        concurrency=args.concurrency,
        per_minute=args.per_minute,
        attempts=args.attempts,
        dead_after=args.dead_after,
        deadline_seconds=args.deadline,
    )
    endpoint = Endpoint(config)
    return endpoint, endpoint.identity
