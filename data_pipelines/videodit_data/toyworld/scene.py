"""A scene: things on their paths before a background, perhaps a panning camera and an occluder in front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from videodit_data.toyworld.physics import Event, Path, Vector
from videodit_data.toyworld.world import SHAPES, Shape


@dataclass(frozen=True)
class Thing:
    """One coloured object; `radius` in units of the frame's short side."""

    shape: str
    colour: str
    size: str
    motion: str
    radius: float
    path: Path

    @property
    def outline(self) -> Shape:
        """Return the geometry of the shape's name."""
        return SHAPES[self.shape]


@dataclass(frozen=True)
class Background:
    """A neutral tone, varied by `contrast` grey levels along waves (cycles a unit in x and y, phase in radians)."""

    texture: str
    tone: str
    contrast: float = 0.0
    waves: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Occluder:
    """A neutral rectangle in front of everything, fixed in the world: near and far corner."""

    near: Vector
    far: Vector


@dataclass(frozen=True)
class Scene:
    """One scene over time 0 to 1. `room` is the frame's far corner; `drift` is how far the camera travels in all."""

    room: Vector
    things: tuple[Thing, ...]
    background: Background
    events: tuple[Event, ...] = ()
    pan: str | None = None
    drift: Vector = (0.0, 0.0)
    occluder: Occluder | None = None

    def camera(self, times: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 2"]:
        """Return the positions of the frame's near corner in the world; (0, 0) halfway through the clip."""
        return np.outer(times - 0.5, self.drift)


def frame_times(frames: int) -> Float[np.ndarray, " T"]:
    """Return the moments of a clip's frames, from 0 to 1."""
    return np.linspace(0.0, 1.0, frames) if frames > 1 else np.zeros(1)


def room_of(height: int, width: int) -> Vector:
    """Return the far corner (x, y) of a frame in units of its short side; `ValueError` if there is no frame."""
    if height < 1 or width < 1:
        raise ValueError(f"Toyworld frames need a positive height and width, not {height} x {width}.")
    short = min(height, width)
    return width / short, height / short
