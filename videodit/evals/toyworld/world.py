"""The oracle's interface: the world whose clips it judges, statements, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

STRAIGHT = ("left", "right", "up", "down")
MOTIONS = (*STRAIGHT, "clockwise", "bounce")


@runtime_checkable
class Statement(Protocol):
    """An assertion about a clip.

    Attributes:
        kind: colour, shape, size, motion, count or permanence.
        value: what is asserted, counts as digits.
        subject: the color of the object that it is about; None for the main object.
    """

    @property
    def kind(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def subject(self) -> str | None: ...


@dataclass(frozen=True)
class Verdict:
    """The verdict on a statement: whether it holds, what was measured, and the confidence (0 to 1)."""

    kind: str
    value: str
    subject: str | None
    holds: bool
    measured: str
    confidence: float


@dataclass(frozen=True, eq=False)
class World:
    """The names that clips are judged by. Lengths are in units of the frame's short side.

    Attributes:
        palette: color to [red, green, blue] of 0 to 255.
        shapes: name to the corners [[x, y], ...] of an object of radius 1, y downwards.
        motions: any of left, right, up, down, clockwise, bounce.
        sizes: name to the smallest and largest radius.

    Raises:
        ValueError: for an unknown motion, or an empty field.
    """

    palette: Mapping[str, Sequence[int]]
    shapes: Mapping[str, Sequence[Sequence[float]]]
    motions: Sequence[str]
    sizes: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        unknown = [motion for motion in self.motions if motion not in MOTIONS]
        if unknown:
            raise ValueError(
                f"The oracle cannot recognize the motion {unknown[0]!r}: motions are {', '.join(MOTIONS)}."
            )
        for name in ("palette", "shapes", "motions", "sizes"):
            if not getattr(self, name):
                raise ValueError(f"A world needs at least one entry in {name}.")

    @cached_property
    def outlines(self) -> dict[str, Float[np.ndarray, "K 2"]]:
        """The corners of the shapes as arrays."""
        return {name: np.asarray(corners, np.float64) for name, corners in self.shapes.items()}

    @cached_property
    def areas(self) -> dict[str, float]:
        """The area of each shape at radius 1."""
        return {name: abs(polygon_area(corners)) for name, corners in self.outlines.items()}

    @cached_property
    def area_range(self) -> tuple[float, float]:
        """The areas of the smallest and the largest object."""
        radii = [radius for span in self.sizes.values() for radius in span]
        return min(self.areas.values()) * min(radii) ** 2, max(self.areas.values()) * max(radii) ** 2


def polygon_area(corners: Float[np.ndarray, "K 2"]) -> float:
    """Return the signed area of a polygon (the shoelace formula)."""
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    return float(np.sum(x * next_y - next_x * y) / 2)
