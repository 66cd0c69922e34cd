"""Types of options that are numbers: each has a range, checked when the command line is parsed."""

import argparse
from dataclasses import dataclass

from videodit.ranges import Range


@dataclass(frozen=True)
class Number:
    """The type of an option for numbers of one `kind` that are `allowed`."""

    kind: type[int] | type[float]
    allowed: Range

    def __call__(self, text: str) -> int | float:
        """Return the number of a text. ArgumentTypeError says what it is, and what is allowed."""
        try:
            number = self.kind(text)
        except ValueError:
            number = None
        if number not in self.allowed:
            what = "whole number" if self.kind is int else "number"
            raise argparse.ArgumentTypeError(f"'{text:.40}' is not a {what} {self.allowed}")
        return number


SIZE = Number(int, Range(1, 2**24))
COUNT = Number(int, Range(0, 2**24))
TOKENS = Number(int, Range(1, 2**31 - 1))
WORKERS = Number(int, Range(1, 4096))
SEED = Number(int, Range(0, 2**32 - 1))
FPS = Number(float, Range(1e-3, 1e6))
PER_MINUTE = Number(float, Range(1e-3, 1e6))
SECONDS = Number(float, Range(1e-3, 1e6))
