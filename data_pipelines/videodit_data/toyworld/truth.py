"""The ground truth of a clip as a JSON-able dict: positions and visibility of things in each frame, and events."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from videodit_data.toyworld.render import signed_distance
from videodit_data.toyworld.scene import Occluder, Scene, Thing, frame_times
from videodit_data.toyworld.statements import Statement, about
from videodit_data.toyworld.world import FEWEST_MOVING_FRAMES, SHAPES

# A thing counts as hidden where less than this much of it is seen.
HIDDEN = 0.02


def truth_of(scene: Scene, frames: int, fps: float) -> dict[str, Any]:
    """Return the truth of a scene seen in `frames` frames at `fps`; lengths in units of the frame's short side.

    objects: shape, colour, size, motion (of the object in the world), radius, `centre` [[x, y]] on the screen and
        `visible` [0..1] a frame, `mean_area` (seen, over the clip), `occluded` (hidden by the occluder in some frame)
    events: kind "wall", "collision" or "occluded", `time` (and `until`) in seconds, `objects` by their index
    background: texture and tone. pan: direction or None, and the camera's `offset` [[x, y]] a frame
    occluder: near and far corner in the world, or None. moving: whether the clip is long enough to show motion
    statements: all that is true of the clip, as dicts
    """
    times, duration = frame_times(frames), (frames - 1) / fps
    camera = scene.camera(times)
    objects = [_object(scene, thing, times) for thing in scene.things]
    events = [{**event.json(), "time": round(event.time * duration, 5)} for event in scene.events]
    events += _occlusions(scene, duration)
    truth = {
        "room": list(scene.room),
        "duration": round(duration, 5),
        "moving": frames >= FEWEST_MOVING_FRAMES,
        "objects": objects,
        "events": sorted(events, key=lambda event: event["time"]),
        "background": {"texture": scene.background.texture, "tone": scene.background.tone},
        "pan": {"direction": scene.pan, "offset": np.round(camera, 5).tolist()},
        "occluder": scene.occluder and {"near": list(scene.occluder.near), "far": list(scene.occluder.far)},
    }
    truth["statements"] = [statement.json() for statement in statements_of(truth)]
    return truth


def statements_of(truth: dict[str, Any]) -> list[Statement]:
    """Return every statement that holds of a clip; the only object is the main one, several are named by colour."""
    objects = truth["objects"]
    statements = [
        statement
        for thing in objects
        for statement in about(thing, thing["colour"] if len(objects) > 1 else None, motion=truth["moving"])
    ]
    return [*statements, Statement("count", str(len(objects)))]


def _object(scene: Scene, thing: Thing, times: Float[np.ndarray, " T"]) -> dict[str, Any]:
    center_T2 = thing.path.at(times)
    points_TP2 = center_T2[:, None] + thing.radius * _interior(thing.shape)
    hidden_TP = _covered(points_TP2, scene.occluder)
    screen_TP2 = points_TP2 - scene.camera(times)[:, None]
    inside_TP = ((screen_TP2 >= 0) & (screen_TP2 <= np.asarray(scene.room))).all(axis=-1)
    visible_T = (inside_TP & ~hidden_TP).mean(axis=-1)
    return {
        "shape": thing.shape,
        "colour": thing.colour,
        "size": thing.size,
        "motion": thing.motion,
        "radius": round(thing.radius, 5),
        "centre": np.round(center_T2 - scene.camera(times), 5).tolist(),
        "visible": np.round(visible_T, 3).tolist(),
        "mean_area": round(float(np.pi * thing.radius**2 * visible_T.mean()), 5),
        "occluded": bool((hidden_TP.mean(axis=-1) > 1 - HIDDEN).any()),
    }


@lru_cache
def _interior(shape: str) -> Float[np.ndarray, "P 2"]:
    """Return evenly spaced points over a shape of radius 1."""
    outline = SHAPES[shape]
    grid = np.linspace(-outline.reach, outline.reach, 35)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))
    return np.stack([x, y], axis=-1)[signed_distance(outline, x, y) <= 0]


def _covered(points_TP2: Float[np.ndarray, "T P 2"], occluder: Occluder | None) -> Any:
    if occluder is None:
        return np.zeros(points_TP2.shape[:2], bool)
    return ((points_TP2 > np.asarray(occluder.near)) & (points_TP2 < np.asarray(occluder.far))).all(axis=-1)


def _occlusions(scene: Scene, duration: float) -> list[dict[str, Any]]:
    """Return the times from and to which each thing is wholly behind the occluder."""
    events = []
    fine = np.linspace(0.0, 1.0, 1025)
    for index, thing in enumerate(scene.things if scene.occluder else ()):
        box = thing.radius * np.asarray(thing.outline.box)
        corners_TP2 = thing.path.at(fine)[:, None] + np.array([[-box[0], -box[2]], [box[1], box[3]]])
        hidden = fine[_covered(corners_TP2, scene.occluder).all(axis=-1)] * duration
        if len(hidden):
            time, until = round(float(hidden[0]), 5), round(float(hidden[-1]), 5)
            events.append({"kind": "occluded", "time": time, "until": until, "objects": [index]})
    return events
