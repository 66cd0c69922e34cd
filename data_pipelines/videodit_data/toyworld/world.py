"""The elements of the toy world: colours, shapes, motions, backgrounds, and three levels of difficulty.

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

# Clips of fewer frames count as stills, and their captions do not mention motion.
FEWEST_MOVING_FRAMES = 5


@dataclass(frozen=True)
class Shape:
    """A convex polygon by its corners (x, y), clockwise on the screen; a disc of radius 1 where there are none.

    Its area is a disc's of radius 1, so that an object's radius says how large it is whatever its shape.
    """

    corners: tuple[tuple[float, float], ...] = ()

    def outline(self, segments: int = 48) -> list[list[float]]:
        """Return the corners [[x, y], ...]; a disc has `segments` of them."""
        angles = (2 * math.pi * k / segments for k in range(segments))
        corners = self.corners or ((math.cos(angle), math.sin(angle)) for angle in angles)
        return [[round(x, 4), round(y, 4)] for x, y in corners]

    @cached_property
    def reach(self) -> float:
        """Return the radius of the circle around the shape."""
        return max((math.hypot(x, y) for x, y in self.corners), default=1.0)

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Return the shape's extents to the left, right, up and down of its centre."""
        xs, ys = zip(*self.outline(), strict=True)
        return -min(xs), max(xs), -min(ys), max(ys)


def _polygon(*corners: tuple[float, float]) -> Shape:
    """Return the shape with these corners once it is scaled to the area of a disc of radius 1."""
    ahead = corners[1:] + corners[:1]
    twice = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, ahead, strict=True))
    scale = math.sqrt(2 * math.pi / twice)
    return Shape(tuple((scale * x, scale * y) for x, y in corners))


def _rectangle(aspect: float) -> Shape:
    return _polygon((-aspect, -1.0), (aspect, -1.0), (aspect, 1.0), (-aspect, 1.0))


SHAPES: dict[str, Shape] = {
    "circle": Shape(),
    "square": _rectangle(1.0),
    "rectangle": _rectangle(2.4),
    "triangle": _polygon((0.0, -2.0), (math.sqrt(3), 1.0), (-math.sqrt(3), 1.0)),
    "diamond": _polygon((0.0, -1.65), (1.0, 0.0), (0.0, 1.65), (-1.0, 0.0)),
}

TONES: dict[str, RGB] = {"black": (10, 10, 12), "dark grey": (34, 35, 38), "grey": (60, 61, 63)}

TEXTURES: tuple[str, ...] = ("gradient", "striped", "checkered", "cloudy")


@dataclass(frozen=True)
class Level:
    """A level of difficulty: the contents that its scenes may have.

    sizes: ranges of the object's radius. most_objects, shapes, motions: what there may be. textured: whether
    backgrounds are more than plain. pan, occluder, collision: chances.
    """

    name: str
    sizes: dict[str, tuple[float, float]]
    most_objects: int = 1
    shapes: tuple[str, ...] = tuple(SHAPES)
    motions: tuple[str, ...] = MOTIONS
    textured: bool = False
    pan: float = 0.0
    occluder: float = 0.0
    collision: float = 0.0


_SMALLER = {"small": (0.085, 0.1), "large": (0.135, 0.155)}
_LARGER = {"small": (0.16, 0.175), "large": (0.225, 0.245)}
# They differ in how long they are and which way they point, which survives any blur: a square's corners do not.
_UNLIKE = ("circle", "rectangle", "triangle", "diamond")

LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("easy", _LARGER, shapes=_UNLIKE, motions=MOTIONS[:4]),
        Level("medium", _SMALLER, 2, textured=True, pan=0.5),
        Level("hard", _SMALLER, 3, textured=True, pan=0.5, occluder=0.5, collision=0.4),
    )
}


def get_level(name: str) -> Level:
    """Return the level of that name; `ValueError` lists the names there are."""
    if name not in LEVELS:
        raise ValueError(f"Toyworld has no level {name!r}; its levels are {', '.join(LEVELS)}.")
    return LEVELS[name]


def world(level: str) -> dict[str, Any]:
    """Return the world of a level as a JSON-able dict, for programs that judge clips without importing this package.

    Keys: `palette` {name: [r, g, b]}, `shapes` {name: outline [[x, y], ...] for an object of radius 1},
    `motions` [name], `sizes` {name: [smallest, largest radius in units of the frame's short side]}.
    """
    return {
        "palette": {name: list(rgb) for name, rgb in PALETTE.items()},
        "shapes": {name: SHAPES[name].outline() for name in get_level(level).shapes},
        "motions": list(get_level(level).motions),
        "sizes": {name: list(span) for name, span in get_level(level).sizes.items()},
    }
