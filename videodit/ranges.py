"""Ranges of numbers, as annotations of a configuration's fields, checked when it is built.

Limits are far beyond what anybody trains or samples: what lies outside is a slip, or would exhaust a machine.
"""

import functools
import numbers
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both included, but for one that is `excluded`; never NaN."""

    least: int | float
    most: int | float
    excluded: int | None = None

    def __contains__(self, value: Any) -> bool:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return is_number and self.least <= value <= self.most and value != self.excluded

    def __str__(self) -> str:
        return f"from {self.least} to {self.most}" + ("" if self.excluded is None else f", but not {self.excluded}")


Size = Annotated[int, Range(1, 2**24)]
Depth = Annotated[int, Range(1, 10_000)]
Count = Annotated[int, Range(0, 2**40)]
Steps = Annotated[int, Range(0, 2**31 - 1)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, excluded=1)]
Positive = Annotated[float, Range(0, 1e9, excluded=0)]
Weight = Annotated[float, Range(0, 1e9)]
Guidance = Annotated[float, Range(-1e4, 1e4)]
Epsilon = Annotated[float, Range(0, 1)]


def check_ranges(config: Any) -> None:
    """Check every number of a dataclass whose annotation has a `Range`, those in tuples too.

    Raises:
        ValueError: naming the field, its value and the range.
    """
    for name, allowed in _ranges_of(type(config)).items():
        value = getattr(config, name)
        if not all(number in allowed for number in _numbers(value)):
            subject = "each of its numbers" if isinstance(value, tuple) else "it"
            raise ValueError(f"{name} is {value!r:.80}: {subject} must be {allowed}")


@functools.cache
def _ranges_of(cls: type) -> dict[str, Range]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: found for name, hint in hints.items() if (found := _find_range(hint)) is not None}


def _find_range(hint: Any) -> Range | None:
    """Return the first range in an annotation, like that of `tuple[Size, ...] | None`."""
    return hint if isinstance(hint, Range) else next(filter(None, map(_find_range, typing.get_args(hint))), None)


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _numbers(entry)
    elif value is not None:
        yield value
