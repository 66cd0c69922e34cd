"""Prompts of `videodit sample` expanded by a model, with the instruction that captions are asked for with."""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from videodit_data.captioning.expand import Expansion


def add_options(parser: argparse.ArgumentParser) -> None:
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
