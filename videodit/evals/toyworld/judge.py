"""The oracle: the objects of a clip, and which statements hold for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from videodit.evals.toyworld.hiding import permanence_of
from videodit.evals.toyworld.motion import motion_of
from videodit.evals.toyworld.segment import as_unit, hues_of
from videodit.evals.toyworld.shape import shape_of
from videodit.evals.toyworld.track import Track, tracks_of
from videodit.evals.toyworld.world import Statement, Verdict, World

NOTHING = "nothing"


@dataclass(frozen=True)
class Sighting:
    """An object as observed: each property with a confidence from 0 to 1; "unclear" if it cannot be determined.

    Attributes:
        centre: (x, y) per frame, in units of the short side; NaN in frames that do not show it.
        area: visible area per frame, in square units.
    """

    colour: tuple[str, float]
    shape: tuple[str, float]
    size: tuple[str, float]
    motion: tuple[str, float]
    permanence: tuple[str, float]
    centre: Float[np.ndarray, "T 2"]
    area: Float[np.ndarray, " T"]


def observe(frames: UInt8[np.ndarray, "T Y X 3"] | Float[np.ndarray, "T Y X 3"], world: World) -> list[Sighting]:
    """Return the objects in a clip (uint8, or floats in [-1, 1]), the largest first."""
    video_TYXC = as_unit(frames)
    tracks = tracks_of(hues_of(video_TYXC, world), world)
    return [_sighting(track, video_TYXC, world) for track in tracks]


def verify(
    frames: UInt8[np.ndarray, "T Y X 3"] | Float[np.ndarray, "T Y X 3"],
    statements: Sequence[Statement],
    world: World,
) -> list[Verdict]:
    """Return a verdict on each statement about a clip (uint8, or floats in [-1, 1]); all are False without an object.

    Raises:
        ValueError: for an unknown kind of statement.
    """
    sightings = observe(frames, world)
    return [_judge(statement, sightings) for statement in statements]


def adherence(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Return the share of statements that hold, by kind."""
    holds: dict[str, list[bool]] = {}
    for verdict in verdicts:
        holds.setdefault(verdict.kind, []).append(verdict.holds)
    return {kind: float(np.mean(values)) for kind, values in holds.items()}


def _judge(statement: Statement, sightings: Sequence[Sighting]) -> Verdict:
    stated_values = (statement.kind, statement.value, statement.subject)
    if statement.kind not in ("colour", "shape", "size", "motion", "count", "permanence"):
        raise ValueError(f"The oracle cannot judge statements of kind {statement.kind!r}.")
    if not sightings:
        return Verdict(*stated_values, False, NOTHING, 1.0)
    if statement.kind == "count":
        return Verdict(*stated_values, statement.value == str(len(sightings)), str(len(sightings)), 1.0)
    if statement.subject is None:
        subject = sightings[0]
    else:
        subject = next((each for each in sightings if each.colour[0] == statement.subject), None)
    if subject is None:
        colours = ", ".join(each.colour[0] for each in sightings)
        return Verdict(*stated_values, False, f"no {statement.subject} object, only {colours}", 1.0)
    measured, confidence = getattr(subject, statement.kind)
    return Verdict(*stated_values, measured == statement.value, measured, confidence)


def _sighting(track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], world: World) -> Sighting:
    short = min(video_TYXC.shape[1:3])
    time = np.linspace(0.0, 1.0, len(track.area))
    seen = track.seen & ~np.isnan(track.centre[:, 0])
    shape, margin = shape_of(track, world, seen)
    motion, confidence = motion_of(time[seen], track.centre[seen] / short)
    return Sighting(
        (track.hue.name, track.hue.margin),
        (shape or "unclear", min(1.0, margin / 0.05)),
        _size(track, shape, short, world),
        (motion or "unclear", confidence),
        (permanence_of(track, video_TYXC, world), 1.0),
        track.centre / short,
        track.area / short**2,
    )


def _size(track: Track, shape: str | None, short: int, world: World) -> tuple[str, float]:
    """Return the size whose range of radii is nearest, by ratio, to the radius that the shape's area implies."""
    coefficient = world.areas[shape] if shape else float(np.median(list(world.areas.values())))
    radius = math.sqrt(track.typical / coefficient) / short
    off = {name: max(math.log(low / radius), math.log(radius / high), 0.0) for name, (low, high) in world.sizes.items()}
    ranked = sorted(off, key=lambda name: off[name])
    if len(ranked) == 1:
        return ranked[0], 1.0
    near, far = off[ranked[0]], off[ranked[1]]
    return ranked[0], (far - near) / max(far + near, 1e-9)
