"""Functions that make a model's further inputs from clips, registered as a run names them."""

from collections.abc import Iterable

from videodit_data.reading.conditions import register_condition

from videodit.registry import import_attribute


def register_conditions(entries: Iterable[str]) -> tuple[str, ...]:
    """Register the functions of `NAME=MODULE:FUNCTION`; returns the names, which may also stand alone.

    Raises:
        ValueError: when there is no such module or function.
    """
    names = []
    for entry in entries:
        name, _, function = entry.partition("=")
        if function:
            register_condition(name, import_attribute(function, "condition"))
        names.append(name)
    return tuple(names)
