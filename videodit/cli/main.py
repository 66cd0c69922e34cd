"""`videodit COMMAND`: the parser, and the only place where errors become a sentence and an exit status."""

import argparse
import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from videodit.cli import data, evaluate, plan, quickstart, sample, train, weights
from videodit.cli.exit_status import INTERRUPTED, USER_ERROR

RENAMED = {
    "--sides": "--resolutions",
    "--upsample": "--max-upscale",
    "--every-side": "--every-resolution",
    "--rows": "--batch-size",
}
"""Options of commands by their former names."""

COMMANDS = (quickstart, train, sample, evaluate, plan, data, weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 if it had no result, 2 for a mistake, 130 if interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    console = Console(stderr=True)
    args, rest = _build_parser().parse_known_args(argv)
    try:
        if rest and not getattr(args, "takes_overrides", False):
            raise ValueError(_describe_unknown(rest, args))
        if rest:
            args.overrides = rest
        return args.command(args, console)
    except KeyboardInterrupt:
        console.print("interrupted: the same command resumes from what is saved")
        return INTERRUPTED
    except (ValueError, OSError, RuntimeError) as error:
        if args.debug:
            raise
        console.print(f"videodit: {_sentence(error)}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return USER_ERROR


def _describe_unknown(rest: Sequence[str], args: argparse.Namespace) -> str:
    """Return a sentence about arguments that a command does not have."""
    option = next((each.partition("=")[0] for each in rest if each.startswith("--")), "")
    if option in RENAMED:
        return f"the option {option} is called {RENAMED[option]} now"
    command = " ".join(filter(None, ("videodit", args.name, getattr(args, "action", None))))
    return f"'{rest[0]}' is not an option of `{command}`: see `{command} --help`"


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodit", description="Train, sample and score video diffusion transformers in JAX."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands, common)
    return parser


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
