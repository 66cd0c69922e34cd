"""The one front door, and the only place of the library where data and model meet."""

from videodit.cli.main import main

__all__ = ["main"]
