"""The command line: argparse and messages only."""

from videodit.cli.main import main

__all__ = ["main"]
