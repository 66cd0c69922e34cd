"""`videodit COMMAND`: the parser, and the only place where errors become a sentence and an exit status."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from videodit_data.boundary.terminal import SafeConsole, SafeFormatter, escape_controls, print_exception

from videodit.checkpoint.disk_error import describe_write_error
from videodit.cli import data, evaluate, plan, processes, quickstart, sample, train, weights
from videodit.cli.exit_status import USER_ERROR
from videodit.cli.signals import SignalWatch

RENAMED = {
    "--sides": "--resolutions",
    "--upsample": "--max-upscale",
    "--every-side": "--every-resolution",
    "--rows": "--batch-size",
}
"""Options of commands by their former names."""

COMMANDS = (quickstart, train, sample, evaluate, plan, data, weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, one of `exit_status`, or 128 + the number of the signal that ended it.

    Without `argv` it runs the command of this process, whose signals it then handles.
    """
    _escape_messages()
    console, watch = SafeConsole(stderr=True), SignalWatch()
    args, rest = _build_parser().parse_known_args(argv)
    try:
        _check_utf8(sys.argv[1:] if argv is None else argv)
        if argv is None:
            processes.supervise_if_several(args)
            watch.start()
        if rest and not getattr(args, "takes_overrides", False):
            raise ValueError(_describe_unknown(rest, args))
        if rest:
            args.overrides = rest
        return args.command(args, console)
    except BaseException as error:
        if watch.number or isinstance(error, KeyboardInterrupt):  # libraries may turn one into any other error
            return watch.conclude()
        if args.debug or not isinstance(error, (ValueError, OSError, RuntimeError, MemoryError)):
            raise
        console.print(f"videodit: {_sentence(error)}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return USER_ERROR


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(escape_controls(message))


def _escape_messages() -> None:
    """Escape controls in log lines, warnings and tracebacks, which may quote foreign text."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = print_exception


def _check_utf8(argv: Sequence[str]) -> None:
    """Raise ValueError for a path that is no UTF-8, which neither checkpoints nor manifests can name."""
    for what, path in (("working directory", os.getcwd()), *(("argument", argument) for argument in argv)):
        if os.fsencode(path).decode(errors="ignore") != path:
            raise ValueError(f"the {what} {path!r:.200} is not UTF-8: rename the file or folder")


def _describe_unknown(rest: Sequence[str], args: argparse.Namespace) -> str:
    """Return a sentence about arguments that a command does not have."""
    option = next((each.partition("=")[0] for each in rest if each.startswith("--")), "")
    if option in RENAMED:
        return f"the option {option} is called {RENAMED[option]} now"
    command = " ".join(filter(None, ("videodit", args.name, getattr(args, "action", None))))
    return f"'{rest[0]}' is not an option of `{command}`: see `{command} --help`"


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="videodit", description="Train, sample and score video diffusion transformers in JAX.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands, common)
    return parser


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        if (sentence := describe_write_error(error, Path(error.filename))) is not None:
            return sentence
        return f"{error.filename}: {error.strerror}"
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or re.search("out of memory|RESOURCE_EXHAUSTED", message, re.IGNORECASE):
        return f"out of memory{f' ({message})' * bool(message)}: take smaller sizes, or a machine with more memory"
    return message or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
