"""Filters of clips by thresholds on their measures. Pure."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Filter:
    """A filter that keeps clips whose measure is from `least` to `most`, both included; None is no bound.

    unknown: what becomes of clips of which there is nothing to measure (the loudness of what is silent).
    """

    least: float | None = None
    most: float | None = None
    unknown: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"nothing is at least {self.least:g} and at most {self.most:g}")

    @property
    def active(self) -> bool:
        """Return whether the filter can drop any clip."""
        return self.least is not None or self.most is not None or self.unknown == "drop"


@dataclass(frozen=True)
class Verdict:
    """A reason to drop a clip: a measure, its value, and the threshold that it misses (None where it is unknown)."""

    measure: str
    value: float | None
    threshold: float | None
    reason: str


def iterate_filters(filters: object) -> Iterator[tuple[str, Filter]]:
    """Yield the names of measures and their filters, in the order of the fields of a dataclass of filters."""
    for field in dataclasses.fields(filters):  # type: ignore[arg-type]
        yield field.name, getattr(filters, field.name)


def judge(measures: Mapping[str, float | None], filters: object) -> Verdict | None:
    """Return the first filter that a clip does not pass; None where it passes all.

    ValueError when a filter with thresholds is of something that was not measured.
    """
    for name, filter in iterate_filters(filters):
        if not filter.active:
            continue
        if name not in measures:
            raise ValueError(f"There is a filter of {name}, but what is measured is {', '.join(sorted(measures))}.")
        value = measures[name]
        if value is None:
            if filter.unknown == "drop":
                return Verdict(name, None, None, f"{_words(name)} unknown")
        elif filter.least is not None and not value >= filter.least:
            return Verdict(name, value, filter.least, f"{_words(name)} below {filter.least:g}")
        elif filter.most is not None and not value <= filter.most:
            return Verdict(name, value, filter.most, f"{_words(name)} above {filter.most:g}")
    return None


def _words(name: str) -> str:
    return name.replace("_", " ")
