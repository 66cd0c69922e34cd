"""Start positions and velocities of motions that keep a thing in view and its motion clearly visible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from videodit_data.toyworld.physics import Orbit, Vector
from videodit_data.toyworld.scene import Occluder

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}

TRAVEL = (0.36, 0.5)
LEG = (0.2, 0.4)
ORBIT = 0.24
TURNS = (0.75, 1.0)


@dataclass(frozen=True)
class Launch:
    """A position and a velocity (units per clip)."""

    position: Vector
    velocity: Vector


Box = tuple[float, float, float, float]


def span_of(room: Vector, box: Box, margin: Vector = (0.0, 0.0)) -> tuple[Vector, Vector]:
    """Return the ranges of x and y in which a thing with this box stays inside the room less a margin on each side."""
    left, right, up, down = box
    return (left + margin[0], room[0] - right - margin[0]), (up + margin[1], room[1] - down - margin[1])


def _launch(axis: int, along: float, across: float, speed: float) -> Launch:
    if axis == 0:
        return Launch((along, across), (speed, 0.0))
    return Launch((across, along), (0.0, speed))


def straight(rng: np.random.Generator, motion: str, span: tuple[Vector, Vector]) -> Launch:
    """Return a straight motion of 0.36 to 0.5 units, or as far as there is room, that ends in view."""
    axis, sign = DIRECTIONS[motion]
    low, high = span[axis]
    travel = rng.uniform(min(TRAVEL[0], high - low), min(TRAVEL[1], high - low))
    start = rng.uniform(low, high - travel) if sign > 0 else rng.uniform(low + travel, high)
    return _launch(axis, start, rng.uniform(*span[1 - axis]), sign * travel)


def bounce(rng: np.random.Generator, walls: tuple[Vector, Vector], span: tuple[Vector, Vector]) -> Launch:
    """Return a motion along one axis that meets a wall near mid-clip, both legs between 0.2 and 0.4 units."""
    axis, sign = DIRECTIONS[rng.choice(list(DIRECTIONS))]
    wall = walls[axis][1] if sign > 0 else walls[axis][0]
    longest = min(LEG[1], abs(wall - span[axis][0 if sign > 0 else 1]))
    there = rng.uniform(LEG[0], longest)
    back = rng.uniform(max(LEG[0], 0.65 * there), min(longest, 1.5 * there))
    return _launch(axis, wall - sign * there, rng.uniform(*span[1 - axis]), sign * (there + back))


def orbit(rng: np.random.Generator, span: tuple[Vector, Vector]) -> Orbit:
    """Return an orbit of three quarters of a turn or more, clockwise, wholly in view."""
    room = min(high - low for low, high in span)
    radius = rng.uniform(0.8, 1.0) * min(ORBIT, room / 2)
    center = tuple(rng.uniform(low + radius, high - radius) for low, high in span)
    return Orbit((center[0], center[1]), radius, rng.uniform(0, 2 * math.pi), 2 * math.pi * rng.uniform(*TURNS))


def collision(
    rng: np.random.Generator,
    boxes: tuple[Box, Box],
    masses: tuple[float, float],
    spans: tuple[tuple[Vector, Vector], ...],
) -> tuple[int, tuple[Launch, Launch]]:
    """Return two motions that meet head-on near mid-clip and both turn back, and their axis.

    Their momenta nearly cancel, so that each reverses. Nothing is promised of the room: the caller checks.
    """
    axis = int(rng.integers(2))
    push, skew, when = rng.uniform(0.34, 0.46), rng.uniform(0.88, 1.14), rng.uniform(0.44, 0.56)
    share = math.sqrt(masses[1] / masses[0])
    speeds = push * share * skew, push / share
    meet = rng.uniform(0.35, 0.65) * (spans[0][axis][1] + boxes[0][2 * axis + 1])
    across = rng.uniform(max(span[1 - axis][0] for span in spans), min(span[1 - axis][1] for span in spans))
    one = meet - boxes[0][2 * axis + 1] - speeds[0] * when
    two = meet + boxes[1][2 * axis] + speeds[1] * when
    return axis, (_launch(axis, one, across, speeds[0]), _launch(axis, two, across, -speeds[1]))


def behind(
    rng: np.random.Generator, motion: str, box: Box, reach: float, room: Vector, span: tuple[Vector, Vector]
) -> tuple[Launch, Occluder]:
    """Return a straight motion across the room and an occluder that hides all of the thing at half time.

    The occluder is a bar across the whole room or a block just tall enough.
    """
    axis, sign = DIRECTIONS[motion]
    low, high = span[axis]
    travel = rng.uniform(0.94, 1.0) * min(high - low, 0.85)
    start = rng.uniform(low, high - travel) if sign > 0 else rng.uniform(low + travel, high)
    launch = _launch(axis, start, rng.uniform(*span[1 - axis]), sign * travel)
    middle = start + sign * travel / 2 + rng.uniform(-0.01, 0.01)
    ends = [middle - box[2 * axis] - 0.045, middle + box[2 * axis + 1] + 0.045]
    if rng.random() < 0.5:
        sides = [-1.0, room[1 - axis] + 1.0]
    else:
        across = launch.position[1 - axis]
        sides = [across - reach - rng.uniform(0.03, 0.1), across + reach + rng.uniform(0.03, 0.1)]
    if axis == 0:
        return launch, Occluder((ends[0], sides[0]), (ends[1], sides[1]))
    return launch, Occluder((sides[0], ends[0]), (sides[1], ends[1]))
