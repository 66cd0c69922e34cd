"""`videodit data caption`, and the prompts of `videodit sample` expanded by the same instruction."""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from videodit_data.captioning.captioner import Captioner, Identity
    from videodit_data.captioning.expand import Expansion
    from videodit_data.manifest import Manifest

EXAMPLES = """examples:
  videodit data caption data/footage --out data/captioned --endpoint http://localhost:8000 --model NAME
  videodit data caption data/footage --out data/captioned --endpoint https://api.example.com --model NAME \\
    --key-env API_KEY --per-minute 60 --concurrency 8 --lengths short,long --keep none
  videodit data caption data/footage --out data/captioned --captioner mymodule:caption --batch 8
  Ctrl-C stops it; the same command goes on and asks nothing twice
"""

NOTHING_CAPTIONED = 1  # exit status


def add_action(actions: Any, common: argparse.ArgumentParser) -> None:
    """`videodit data caption`."""
    action = actions.add_parser(
        "caption",
        parents=[common],
        help="have a model caption a data set",
        description="Make a data set of the same videos with captions by a model that looks at their frames.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        help="where a clip's present captions stay: before the new ones, after (default), or nowhere",
    )
    action.add_argument("--frames", type=int, default=8, help="of a clip that are shown (default: %(default)s)")
    action.add_argument("--side", type=int, default=512, help="pixels of their longer side (default: %(default)s)")
    action.add_argument("--reuse", type=Path, metavar="DATASET", help="take good answers of this earlier result")
    action.add_argument("--batch", type=int, default=8, help="clips of one call of --captioner (default: %(default)s)")
    dead = "failed requests in a row, or failed clips before a good one, that end the run (default: %(default)s)"
    action.add_argument("--dead-after", type=int, default=12, metavar="N", help=dead)
    group = action.add_argument_group("endpoint")
    group.add_argument("--model", help="its name there")
    group.add_argument("--key-env", metavar="NAME", help="environment variable that holds the key")
    group.add_argument("--concurrency", type=int, default=4, help="requests in flight (default: %(default)s)")
    group.add_argument("--per-minute", type=float, help="requests a minute at most (default: as many as go)")
    group.add_argument("--attempts", type=int, default=5, help="at a clip (default: %(default)s)")
    group.add_argument("--deadline", type=float, default=120, help="seconds of a request (default: %(default)s)")
    action.set_defaults(command=caption)


def caption(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.captioning.lengths import parse_lengths
    from videodit_data.captioning.look import Look
    from videodit_data.captioning.stage import caption_dataset

    from videodit.cli.data import Bar

    lengths = parse_lengths(args.lengths)
    captioner, identity = _captioner(args)
    # An endpoint's answers are noted one by one; what a callable can do side by side it does in its batch.
    batch, threads = (1, args.concurrency) if args.endpoint else (args.batch, 1)
    with Bar(console) as bar:
        made = caption_dataset(
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
    console.print(summary(made, args.out), markup=False, highlight=False, soft_wrap=True)
    if made.info["captions"]["captioned"]:
        return 0
    console.print(f"once the captioner answers, ask again with --reuse {args.out} and another --out", soft_wrap=True)
    return NOTHING_CAPTIONED


def summary(made: "Manifest", out: Path) -> str:
    """How many clips got captions, and why others did not."""
    told = made.info["captions"]
    failed = ", ".join(f"{count} {reason}" for reason, count in told["failed"].items())
    named = f"; the others keep theirs ({failed}), named in {out / 'captioning.jsonl'}" if failed else ""
    return f"{told['captioned']} of {made.clips} clips captioned{named}"


def _captioner(args: argparse.Namespace) -> "tuple[Captioner, Identity]":
    from videodit_data.captioning.captioner import load
    from videodit_data.captioning.endpoint import Endpoint, EndpointConfig

    if args.captioner is not None:
        return load(args.captioner)
    if args.model is None:
        raise ValueError("--endpoint goes with --model, the name of the model to ask there")
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


def add_expansion(parser: argparse.ArgumentParser) -> None:
    """The options of `videodit sample` for prompts that a model expands."""
    group = parser.add_argument_group(
        "expansion", "let a model turn short prompts into what training captions look like"
    )
    group.add_argument("--expand", metavar="URL", help="server with an OpenAI-style chat API")
    group.add_argument("--expand-model", metavar="NAME", help="the model to ask there")
    group.add_argument("--expand-key-env", metavar="NAME", help="environment variable that holds the key")
    group.add_argument(
        "--expand-length", choices=("short", "medium", "long"), default="medium", help="(default: %(default)s)"
    )
    group.add_argument("--expand-deadline", type=float, default=60, help="seconds of a request (default: %(default)s)")
    group.add_argument(
        "--expand-or-plain", action="store_true", help="take the prompt as it is where it cannot be expanded"
    )


def expand_prompts(args: argparse.Namespace, prompts: Sequence[str], console: Console) -> "list[Expansion | None]":
    """What each prompt becomes; None where it stays as it is, since nothing is asked, or nothing comes and that may be.

    ValueError when a prompt cannot be expanded and `--expand-or-plain` is not given.
    """
    if args.expand is None:
        if args.expand_model or args.expand_key_env or args.expand_or_plain:
            raise ValueError(
                "--expand-model, --expand-key-env and --expand-or-plain go with --expand, a server's address"
            )
        return [None] * len(prompts)
    if args.expand_model is None:
        raise ValueError("--expand goes with --expand-model, the name of the model to ask there")
    from videodit_data.captioning.endpoint import Endpoint, EndpointConfig
    from videodit_data.captioning.expand import Expansion, expand
    from videodit_data.captioning.lengths import LENGTHS

    # Somebody waits: few attempts, and every failure is told.
    config = EndpointConfig(
        args.expand,
        args.expand_model,
        key_env=args.expand_key_env,
        attempts=3,
        deadline_seconds=args.expand_deadline,
        most_wait=20,
    )
    endpoint, expansions = Endpoint(config), []

    def one(prompt: str) -> Expansion | str:
        try:
            found = expand(endpoint, prompt, LENGTHS[args.expand_length])
        except RuntimeError as error:
            return str(error)
        return found if isinstance(found, Expansion) else f"{found.reason}: {found.detail}"

    pool = ThreadPoolExecutor(config.concurrency)
    try:
        begun = [pool.submit(one, prompt) for prompt in prompts]
        for prompt, found in zip(prompts, (each.result() for each in begun), strict=True):
            if isinstance(found, str) and not args.expand_or_plain:
                raise ValueError(f"'{prompt[:60]}' cannot be expanded ({found}); --expand-or-plain takes it as it is")
            told = f"taken as it is ({found})" if isinstance(found, str) else found.expanded
            console.print(f"{prompt}\n  -> {told}", highlight=False, markup=False, soft_wrap=True)
            expansions.append(None if isinstance(found, str) else found)
    finally:
        endpoint.stop(cut=True)
        pool.shutdown(cancel_futures=True)
    return expansions
