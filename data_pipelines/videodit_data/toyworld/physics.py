"""Motions of things: straight lines with elastic bounces, solved from event to event, and circular orbits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

Vector = tuple[float, float]


@dataclass(frozen=True)
class Polyline:
    """A path of constant velocity between knots."""

    times: tuple[float, ...]
    points: tuple[Vector, ...]

    def at(self, times: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 2"]:
        """Return the positions at the given times."""
        xs, ys = zip(*self.points, strict=True)
        return np.stack([np.interp(times, self.times, xs), np.interp(times, self.times, ys)], axis=-1)


@dataclass(frozen=True)
class Orbit:
    """A circle at constant speed, clockwise as seen on the screen; `phase` and `rate` in radians (a unit of time)."""

    center: Vector
    radius: float
    phase: float
    rate: float

    def at(self, times: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 2"]:
        """Return the positions at the given times."""
        angle = self.phase + self.rate * times
        return np.asarray(self.center) + self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


Path = Polyline | Orbit


@dataclass
class Body:
    """A moving body: `reach` is its radius towards other bodies, `box` its reach to the left, right, up and down."""

    position: Vector
    velocity: Vector
    mass: float
    reach: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Event:
    """An event: `kind` is "wall" or "collision", `wall` the side that was hit."""

    kind: str
    time: float
    objects: tuple[int, ...]
    wall: str | None = None

    def json(self) -> dict[str, Any]:
        """Return a JSON-able dict, without the keys that do not apply."""
        wall = {} if self.wall is None else {"wall": self.wall}
        return {"kind": self.kind, "time": self.time, "objects": list(self.objects), **wall}


def simulate(bodies: Sequence[Body], room: Vector, duration: float = 1.0) -> tuple[list[Polyline], list[Event]]:
    """Move bodies through a room with four walls, bouncing elastically off the walls and each other.

    `room` is the far corner, the near one is (0, 0). Kinetic energy is conserved throughout, and momentum in every
    collision. Returns each body's path and the events in order of time. The bodies are left as they were.
    """
    bodies = [Body(**vars(body)) for body in bodies]
    knots = [([0.0], [body.position]) for body in bodies]
    events: list[Event] = []
    now = 0.0
    while True:
        event = _next_event(bodies, room, now)
        step = min(event.time, duration) - now if event else duration - now
        for body in bodies:
            body.position = _after(body, step)
        now += step
        if event is None or event.time >= duration:
            break
        if event.kind == "wall":
            _reflect(bodies[event.objects[0]], event.wall)
        else:
            _collide(bodies[event.objects[0]], bodies[event.objects[1]])
        for index in event.objects:
            knots[index][0].append(now)
            knots[index][1].append(bodies[index].position)
        events.append(event)
    for (times, points), body in zip(knots, bodies, strict=True):
        times.append(duration)
        points.append(body.position)
    return [Polyline(tuple(times), tuple(points)) for times, points in knots], events


def _after(body: Body, step: float) -> Vector:
    (x, y), (u, v) = body.position, body.velocity
    return x + u * step, y + v * step


def _next_event(bodies: Sequence[Body], room: Vector, now: float) -> Event | None:
    events: list[Event] = []
    for index, body in enumerate(bodies):
        for axis, (low_wall, high_wall) in enumerate((("left", "right"), ("up", "down"))):
            speed, position = body.velocity[axis], body.position[axis]
            if speed > 0:
                wait = (room[axis] - body.box[2 * axis + 1] - position) / speed
            elif speed < 0:
                wait = (body.box[2 * axis] - position) / speed
            else:
                continue
            events.append(Event("wall", now + max(wait, 0.0), (index,), high_wall if speed > 0 else low_wall))
        for other in range(index):
            wait = _time_to_touch(bodies[other], body)
            if wait is not None:
                events.append(Event("collision", now + wait, (other, index)))
    return min(events, key=lambda event: event.time, default=None)


def _time_to_touch(one: Body, two: Body) -> float | None:
    """Return the time at which two approaching discs touch; None if they never do."""
    dx, dy = two.position[0] - one.position[0], two.position[1] - one.position[1]
    du, dv = two.velocity[0] - one.velocity[0], two.velocity[1] - one.velocity[1]
    closing, speed2 = dx * du + dy * dv, du * du + dv * dv
    gap2 = dx * dx + dy * dy - (one.reach + two.reach) ** 2
    reachable = closing * closing - speed2 * gap2
    if closing >= 0 or reachable <= 0:
        return None
    return max((-closing - math.sqrt(reachable)) / speed2, 0.0)


def _reflect(body: Body, wall: str | None) -> None:
    u, v = body.velocity
    body.velocity = (-u, v) if wall in ("left", "right") else (u, -v)


def _collide(one: Body, two: Body) -> None:
    """Exchange momentum along the line between the centres (an elastic collision of smooth discs)."""
    dx, dy = two.position[0] - one.position[0], two.position[1] - one.position[1]
    distance = math.hypot(dx, dy)
    nx, ny = dx / distance, dy / distance
    closing = (one.velocity[0] - two.velocity[0]) * nx + (one.velocity[1] - two.velocity[1]) * ny
    impulse = 2 * closing * one.mass * two.mass / (one.mass + two.mass)
    (u1, v1), (u2, v2) = one.velocity, two.velocity
    one.velocity = (u1 - impulse / one.mass * nx, v1 - impulse / one.mass * ny)
    two.velocity = (u2 + impulse / two.mass * nx, v2 + impulse / two.mass * ny)
