"""Sampling of scenes: draws things first, then a path for each until all move as specified and none overlap."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import numpy as np
from jaxtyping import Float

from videodit_data.toyworld import launches
from videodit_data.toyworld.draft import Draft, Stage, draw_background, draw_stage, draw_things
from videodit_data.toyworld.physics import Body, Event, Path, Vector, simulate
from videodit_data.toyworld.scene import Occluder, Scene, Thing
from videodit_data.toyworld.world import Level

# The least distance between two things that do not collide, and the tries before the things are drawn anew.
GAP = 0.03
TRIES = 30
DRAWS = 10_000

_MOMENTS = np.linspace(0.0, 1.0, 33)


@dataclass
class _Arrangement:
    """The things placed so far, with their paths."""

    stage: Stage
    drafts: list[Draft] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    positions: list[Float[np.ndarray, "M 2"]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    occluder: Occluder | None = None

    def admits(self, draft: Draft, path: Path) -> bool:
        """Return whether a thing on this path stays clear of everything here."""
        at = path.at(_MOMENTS)
        if self.occluder and _distance(at, self.occluder).min() < draft.reach + 0.015:
            return False
        return all(
            np.hypot(*(at - there).T).min() >= draft.reach + neighbor.reach + GAP
            for neighbor, there in zip(self.drafts, self.positions, strict=True)
        )

    def add(self, drafts: list[Draft], paths: list[Path], events: list[Event]) -> None:
        first = len(self.drafts)
        self.drafts += drafts
        self.paths += paths
        self.positions += [path.at(_MOMENTS) for path in paths]
        self.events += [replace(event, objects=tuple(first + k for k in event.objects)) for event in events]


def sample_scene(rng: np.random.Generator, level: Level, room: Vector) -> Scene:
    """Draw a scene of the level in a room whose far corner is `room`; the same generator state, the same scene."""
    count = int(rng.integers(1, level.most_objects + 1))
    stage = draw_stage(rng, level, room, count)
    background = draw_background(rng, level)
    for _ in range(DRAWS):
        arrangement = _arrange(rng, stage, draw_things(rng, level, stage, count))
        if arrangement is not None:
            drafts_and_paths = zip(arrangement.drafts, arrangement.paths, strict=True)
            things = tuple(Thing(**asdict(draft), path=path) for draft, path in drafts_and_paths)
            events = tuple(sorted(arrangement.events, key=lambda event: event.time))
            return Scene(room, things, background, events, stage.pan, stage.drift, arrangement.occluder)
    raise ValueError(f"Toyworld found no room for {count} objects in a frame of {room[0]:.2f} x {room[1]:.2f} units.")


def _arrange(rng: np.random.Generator, stage: Stage, drafts: list[Draft]) -> _Arrangement | None:
    """Place one thing after the other; None when there is no room for one."""
    arrangement = _Arrangement(stage)
    if stage.collides and not _add_colliding(rng, arrangement, drafts[0], drafts[1]):
        return None
    if stage.hides:
        _add_hiding(rng, arrangement, drafts[0])
    for draft in drafts[len(arrangement.drafts) :]:
        for _ in range(TRIES):
            path, events = _wander(rng, stage, draft)
            if arrangement.admits(draft, path):
                arrangement.add([draft], [path], events)
                break
        else:
            return None
    return arrangement


def _wander(rng: np.random.Generator, stage: Stage, draft: Draft) -> tuple[Path, list[Event]]:
    """Return a path for one thing by itself, by its kind of motion."""
    span = stage.span(draft.box)
    if draft.motion == "clockwise":
        return launches.orbit(rng, span), []
    if draft.motion == "bounce":
        launch = launches.bounce(rng, launches.span_of(stage.room, draft.box), span)
    else:
        launch = launches.straight(rng, draft.motion, span)
    (path,), events = simulate([_body(draft, launch, draft.reach)], stage.room)
    return path, events


def _add_hiding(rng: np.random.Generator, arrangement: _Arrangement, draft: Draft) -> None:
    stage = arrangement.stage
    launch, occluder = launches.behind(rng, draft.motion, draft.box, draft.reach, stage.room, stage.span(draft.box))
    (path,), events = simulate([_body(draft, launch, draft.reach)], stage.room)
    arrangement.add([draft], [path], events)
    arrangement.occluder = occluder


def _add_colliding(rng: np.random.Generator, arrangement: _Arrangement, one: Draft, two: Draft) -> bool:
    """Add two things that collide once and meet no wall, in view and moving clearly before and after."""
    stage = arrangement.stage
    spans = stage.span(one.box), stage.span(two.box)
    for _ in range(TRIES):
        axis, starts = launches.collision(rng, (one.box, two.box), (one.mass, two.mass), spans)
        bodies = [_body(one, starts[0], one.box[2 * axis + 1]), _body(two, starts[1], two.box[2 * axis])]
        paths, events = simulate(bodies, stage.room)
        legs = [np.abs(np.diff(np.asarray(path.points), axis=0)).max(axis=-1).min() for path in paths]
        ends = np.asarray([path.at(_MOMENTS)[:, axis] for path in paths])
        (low, high), margin = (0.0, stage.room[axis]), abs(stage.drift[axis]) / 2 - 0.01
        in_view = ends[0].min() - one.box[2 * axis] >= low + margin
        in_view &= ends[1].max() + two.box[2 * axis + 1] <= high - margin
        if in_view and min(legs) >= 0.14 and [event.kind for event in events] == ["collision"]:
            arrangement.add([one, two], list(paths), events)
            return True
    return False


def _body(draft: Draft, launch: launches.Launch, reach: float) -> Body:
    return Body(launch.position, launch.velocity, draft.mass, reach, draft.box)


def _distance(points: Float[np.ndarray, "T 2"], occluder: Occluder) -> Float[np.ndarray, " T"]:
    outside = np.maximum(np.asarray(occluder.near) - points, points - np.asarray(occluder.far))
    return np.hypot(*np.maximum(outside, 0.0).T)
