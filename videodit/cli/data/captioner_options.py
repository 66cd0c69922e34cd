"""The options of `videodit data caption` that name the captioner: a server's model, or a function."""

import argparse
from typing import TYPE_CHECKING

from videodit.cli.number_options import PER_MINUTE, SECONDS, SIZE, WORKERS

if TYPE_CHECKING:
    from videodit_data.captioning.captioner import Captioner, Identity


def add_options(action: argparse.ArgumentParser) -> None:
    """Add `--endpoint`, `--captioner` and the options that go with each."""
    by = action.add_mutually_exclusive_group(required=True)
    by.add_argument("--endpoint", metavar="URL", help="server with an OpenAI-style chat API that takes images")
    by.add_argument(
        "--captioner", metavar="MODULE:FUNCTION", help="your own: see videodit_data/captioning/captioner.py"
    )
    action.add_argument("--batch", type=SIZE, default=8, help="clips of one call of --captioner (default: %(default)s)")
    dead = "failed requests in a row, or failed clips before a good one, that end the run (default: %(default)s)"
    action.add_argument("--dead-after", type=SIZE, default=12, metavar="N", help=dead)
    group = action.add_argument_group("endpoint")
    group.add_argument("--model", help="name of the model there")
    group.add_argument("--key-env", metavar="NAME", help="environment variable that holds the key")
    group.add_argument("--concurrency", type=WORKERS, default=4, help="requests in flight (default: %(default)s)")
    group.add_argument("--per-minute", type=PER_MINUTE, help="requests per minute at most (default: no limit)")
    group.add_argument("--attempts", type=SIZE, default=5, help="at a clip (default: %(default)s)")
    group.add_argument("--deadline", type=SECONDS, default=120, help="seconds of a request (default: %(default)s)")


def parse_captioner(args: argparse.Namespace) -> "tuple[Captioner, Identity]":
    """Return the captioner and its identity; ValueError when it cannot be used."""
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
