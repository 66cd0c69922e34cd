"""Random drafts of a scene's contents, before anything has a position: things, background, camera, and their roles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from videodit_data.toyworld import launches
from videodit_data.toyworld.physics import Vector
from videodit_data.toyworld.scene import Background
from videodit_data.toyworld.world import PALETTE, SHAPES, TEXTURES, TONES, Level


@dataclass(frozen=True)
class Draft:
    """A thing without a path; `reach` is the radius that holds all of it, `mass` its area."""

    shape: str
    colour: str
    size: str
    motion: str
    radius: float

    @cached_property
    def box(self) -> launches.Box:
        """Return the thing's extents to the left, right, up and down."""
        left, right, up, down = SHAPES[self.shape].box
        return left * self.radius, right * self.radius, up * self.radius, down * self.radius

    @cached_property
    def reach(self) -> float:
        """Return the radius of the circle around the thing."""
        return SHAPES[self.shape].reach * self.radius

    @property
    def mass(self) -> float:
        """Return the thing's mass, its area: everything is equally dense."""
        return math.pi * self.radius**2


@dataclass(frozen=True)
class Stage:
    """The settings that a scene's things share: room, camera, and whether the first hides or the first two collide."""

    room: Vector
    pan: str | None
    drift: Vector
    hides: bool
    collides: bool

    def span(self, box: launches.Box) -> tuple[Vector, Vector]:
        """Return the ranges of x and y in which a thing's centre is in view at every moment of the pan."""
        return launches.span_of(self.room, box, (abs(self.drift[0]) / 2, abs(self.drift[1]) / 2))


def draw_stage(rng: np.random.Generator, level: Level, room: Vector, count: int) -> Stage:
    """Draw a stage for `count` things, by the level's probabilities."""
    pan, drift = None, (0.0, 0.0)
    if rng.random() < level.pan:
        pan = str(rng.choice(list(launches.DIRECTIONS)))
        axis, sign = launches.DIRECTIONS[pan]
        length = sign * rng.uniform(0.1, 0.14)
        drift = (length, 0.0) if axis == 0 else (0.0, length)
    hides = bool(rng.random() < level.occluder)
    collides = bool(rng.random() < level.collision) and count > 1 and not hides
    return Stage(room, pan, drift, hides, collides)


def draw_background(rng: np.random.Generator, level: Level) -> Background:
    """Draw a plain tone, or a texture for levels that have them."""
    tone = str(rng.choice(list(TONES)))
    if not level.textured:
        return Background("plain", tone)
    texture, phases = str(rng.choice(TEXTURES)), rng.uniform(0, 2 * math.pi, 6)
    pitch, angle = rng.uniform(2.5, 4.0), rng.uniform(0, 2 * math.pi)
    waves = [(pitch * math.cos(angle), pitch * math.sin(angle))]
    if texture == "gradient":
        waves = [(0.35 * math.cos(angle), 0.35 * math.sin(angle))]
    elif texture == "checkered":
        waves = [(pitch / 2, 0.0), (0.0, pitch / 2)]
    elif texture == "cloudy":
        angles, pitches = rng.uniform(0, 2 * math.pi, 6), rng.uniform(0.6, 3.0, 6)
        waves = [(p * math.cos(a), p * math.sin(a)) for p, a in zip(pitches, angles, strict=True)]
    phased = tuple((float(u), float(v), float(phase)) for (u, v), phase in zip(waves, phases, strict=False))
    # Black would clip the darker half of a texture.
    return Background(texture, "grey" if tone == "black" else tone, float(rng.uniform(12, 18)), phased)


def draw_things(rng: np.random.Generator, level: Level, stage: Stage, count: int) -> list[Draft]:
    """Draw things of distinct colours and shapes; those that hide or collide are small and move accordingly."""
    colors = rng.permutation(list(PALETTE))[:count]
    shapes = rng.permutation(list(level.shapes))[:count]
    drafts = []
    for index, (color, shape) in enumerate(zip(colors, shapes, strict=True)):
        size, motion = str(rng.choice(list(level.sizes))), str(rng.choice(level.motions))
        if stage.collides and index < 2:
            size, motion = "small", "bounce"
        if stage.hides and index == 0:
            size, motion = "small", str(rng.choice(_across(stage.pan)))
        drafts.append(Draft(str(shape), str(color), size, motion, float(rng.uniform(*level.sizes[size]))))
    return drafts


def _across(pan: str | None) -> list[str]:
    """Return the straight motions at right angles to the pan, which leave room on both sides of an occluder."""
    if pan is None:
        return list(launches.DIRECTIONS)
    return ["up", "down"] if pan in ("left", "right") else ["left", "right"]
