"""Statements: the assertions of a caption, small enough to be checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KINDS: tuple[str, ...] = ("colour", "shape", "size", "motion", "count", "permanence")

REAPPEARS = "reappears"


@dataclass(frozen=True, order=True)
class Statement:
    """One assertion. `subject` names an object by its colour; None means the clip's main object.

    colour, shape, size, motion: the subject has this property; a colour with a subject: such an object is there.
    count: the clip shows `value` objects. permanence: the subject passes behind the occluder and reappears.
    """

    kind: str
    value: str
    subject: str | None = None

    def json(self) -> dict[str, str | None]:
        """Return a dict that `Statement(**...)` takes back."""
        return asdict(self)


def about(thing: Mapping[str, Any], subject: str | None, *, motion: bool = True) -> list[Statement]:
    """Return every statement that holds of one object of a clip's truth, under the name `subject`."""
    kinds = ["colour", "shape", "size", *["motion"] * motion]
    statements = [Statement(kind, thing[kind], subject) for kind in kinds]
    return statements + [Statement("permanence", REAPPEARS, subject)] * bool(thing["occluded"])


def holds(statement: Statement, truth: Mapping[str, Any]) -> bool:
    """Return whether a statement is true of a clip, by the clip's own truth (`Clip.truth`)."""
    things = truth["objects"]
    if statement.kind == "count":
        return statement.value == str(len(things))
    if statement.subject is None:
        subject = max(things, key=lambda thing: thing["mean_area"], default=None)
    else:
        subject = next((thing for thing in things if thing["colour"] == statement.subject), None)
    if subject is None:
        return False
    if statement.kind == "permanence":
        return bool(subject["occluded"])
    return bool(subject[statement.kind] == statement.value)
