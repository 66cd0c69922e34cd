"""What the toy world is made of: colours, shapes, motions, backgrounds, and three levels of difficulty.

Lengths are in units of the frame's short side, x to the right and y downwards, so that a scene knows no resolution.
Time runs from 0 at a clip's first frame to 1 at its last, so that a scene knows neither length nor frame rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

RGB = tuple[int, int, int]

# Saturated, at least 40 degrees of hue apart and lighter than every background, so that each survives the halved
# chroma resolution of yuv420p.
PALETTE: dict[str, RGB] = {
    "red": (240, 60, 55),
    "yellow": (245, 215, 50),
    "green": (50, 190, 75),
    "cyan": (55, 210, 230),
    "blue": (80, 110, 255),
    "purple": (200, 80, 235),
}

MOTIONS: tuple[str, ...] = ("left", "right", "up", "down", "clockwise", "bounce")

# From here on, fewer frames are called a still and their captions say nothing about motion.
FEWEST_MOVING_FRAMES = 5


@dataclass(frozen=True)
class Shape:
    """A regular star of `tips` points between two radii (a disc where `tips` is 0), in units of the object's radius."""

    tips: int
    outer: float = 1.0
    inner: float = 1.0
    turn: float = -math.pi / 2

    def outline(self, segments: int = 48) -> list[list[float]]:
        """The corners [[x, y], ...] in order; a disc has `segments` of them."""
        if not self.tips:
            angles = (2 * math.pi * k / segments for k in range(segments))
            return [[round(self.outer * math.cos(a), 4), round(self.outer * math.sin(a), 4)] for a in angles]
        corners = (
            (self.inner if k % 2 else self.outer, self.turn + k * math.pi / self.tips) for k in range(2 * self.tips)
        )
        return [[round(r * math.cos(a), 4), round(r * math.sin(a), 4)] for r, a in corners]

    @property
    def area(self) -> float:
        """The area of an object of radius 1."""
        return self.tips * self.outer * self.inner * math.sin(math.pi / self.tips) if self.tips else math.pi

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """How far the shape reaches to the left, right, up and down of its centre."""
        xs, ys = zip(*self.outline(), strict=True)
        return -min(xs), max(xs), -min(ys), max(ys)


# Shapes that differ still when blurred: in corners, in which way they point, in how long they are.
SHAPES: dict[str, Shape] = {
    "circle": Shape(0),
    "square": Shape(4, 1.25, 1.25 * math.cos(math.pi / 4), turn=-math.pi / 4),
    "triangle": Shape(3, 1.35, 1.35 * math.cos(math.pi / 3)),
    "diamond": Shape(2, 1.5, 0.85),
}

TONES: dict[str, RGB] = {"black": (10, 10, 12), "dark grey": (34, 35, 38), "grey": (60, 61, 63)}

TEXTURES: tuple[str, ...] = ("gradient", "striped", "checkered", "cloudy")


@dataclass(frozen=True)
class Level:
    """What scenes of one difficulty may hold.

    sizes: ranges of the object's radius. most_objects, motions: what there may be. textured: whether backgrounds are
    more than plain. pan, occluder, collision: chances.
    """

    name: str
    sizes: dict[str, tuple[float, float]]
    most_objects: int = 1
    motions: tuple[str, ...] = MOTIONS
    textured: bool = False
    pan: float = 0.0
    occluder: float = 0.0
    collision: float = 0.0


_SMALLER = {"small": (0.085, 0.1), "large": (0.135, 0.155)}

LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("easy", {"small": (0.15, 0.17), "large": (0.22, 0.245)}, motions=MOTIONS[:4]),
        Level("medium", _SMALLER, 2, textured=True, pan=0.5),
        Level("hard", _SMALLER, 3, textured=True, pan=0.5, occluder=0.5, collision=0.4),
    )
}


def level_named(name: str) -> Level:
    """The level of that name; `ValueError` lists the names there are."""
    if name not in LEVELS:
        raise ValueError(f"Toyworld has no level {name!r}; its levels are {', '.join(LEVELS)}.")
    return LEVELS[name]


def world(level: str) -> dict[str, Any]:
    """The world of a level as a JSON-able dict, for whoever judges clips without importing this package.

    Keys: `palette` {name: [r, g, b]}, `shapes` {name: outline [[x, y], ...] for an object of radius 1},
    `motions` [name], `sizes` {name: [smallest, largest radius in units of the frame's short side]}.
    """
    return {
        "palette": {name: list(rgb) for name, rgb in PALETTE.items()},
        "shapes": {name: shape.outline() for name, shape in SHAPES.items()},
        "motions": list(level_named(level).motions),
        "sizes": {name: list(span) for name, span in level_named(level).sizes.items()},
    }
