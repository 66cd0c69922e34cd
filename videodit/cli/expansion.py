"""The options of `videodit sample` that expand prompts with a language model."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from videodit.cli.number_options import SECONDS

if TYPE_CHECKING:
    from videodit.inference.prompt_expansion import ExpandedPrompt, PromptExpansion


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--expand` and the options that go with it."""
    group = parser.add_argument_group(
        "expansion", "expand short prompts to the style of training captions with a language model"
    )
    group.add_argument("--expand", metavar="URL", help="server with an OpenAI-style chat API")
    group.add_argument("--expand-model", metavar="NAME", help="name of the model there")
    group.add_argument("--expand-key-env", metavar="NAME", help="environment variable that holds the key")
    group.add_argument(
        "--expand-length", choices=("short", "medium", "long"), default="medium", help="(default: %(default)s)"
    )
    group.add_argument("--expand-deadline", type=SECONDS, default=60.0, help="seconds of a request (default: 60)")
    group.add_argument(
        "--expand-or-plain", action="store_true", help="use the prompt unchanged if it cannot be expanded"
    )


def expand(args: argparse.Namespace, prompts: Sequence[str], console: Console) -> "list[ExpandedPrompt]":
    """Return the prompts as the options expand them, and print what they became."""
    from videodit.inference.prompt_expansion import expand_prompts
    from videodit.parallel.distributed import is_main_process

    config = _parse_expansion(args)
    texts = expand_prompts(config, prompts)
    if config is not None and is_main_process():
        for prompt, text in zip(prompts, texts, strict=True):
            result = text.text if text.reason is None else f"unchanged ({text.reason})"
            console.print(f"{prompt}\n  -> {result}", highlight=False, markup=False, soft_wrap=True)
    return texts


def _parse_expansion(args: argparse.Namespace) -> "PromptExpansion | None":
    """Return the prompt expansion, None without `--expand`; ValueError if a required option is missing."""
    if args.expand is None:
        if args.expand_model or args.expand_key_env or args.expand_or_plain:
            raise ValueError(
                "--expand-model, --expand-key-env and --expand-or-plain go with --expand, a server's address"
            )
        return None
    if args.expand_model is None:
        raise ValueError("--expand goes with --expand-model, the name of the model there")
    from videodit.inference.prompt_expansion import PromptExpansion

    return PromptExpansion(
        args.expand,
        args.expand_model,
        args.expand_key_env,
        args.expand_length,
        args.expand_deadline,
        args.expand_or_plain,
    )
