"""Object permanence: whether an object passes behind an occluder and reappears unchanged on the far side."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from videodit.evals.toyworld.segment import apart, chroma, degrees
from videodit.evals.toyworld.shape import shape_of
from videodit.evals.toyworld.track import Track
from videodit.evals.toyworld.world import World

Frames = Int[np.ndarray, " _"]  # indices of frames, ascending

REAPPEARS = "reappears"

# An object is hidden in frames that show at most this share of it.
HIDDEN = 0.08
# An occluder is this much lighter or darker than the background, in [0, 1].
CONTRAST = 0.1
SAME_HUE = 30.0


def permanence_of(track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], world: World) -> str:
    """Return "reappears" if an object passes behind an occluder and reappears unchanged, otherwise what is wrong."""
    hidden = track.area < HIDDEN * track.typical
    visible = np.flatnonzero(~hidden)
    inside = np.flatnonzero(hidden[visible[0] : visible[-1]]) + visible[0]
    if not len(inside):
        if visible[-1] < len(hidden) - 1:
            return "does not come back"
        return "always in view" if visible[0] == 0 else "not there at first"
    before, after = visible[visible < inside[0]], visible[visible > inside[-1]]
    if not _continues(track, before, after):
        return "does not come out on the far side"
    if not _has_occluder(track, video_TYXC, before, inside, after):
        return "vanishes with nothing before it"
    if not _same_hue(track, video_TYXC, before, after):
        return "comes back in another colour"
    first, second = (shape_of(track, world, np.isin(np.arange(len(hidden)), side))[0] for side in (before, after))
    if first is not None and second is not None and first != second:
        return "comes back in another shape"
    return REAPPEARS


def _continues(track: Track, before: Frames, after: Frames) -> bool:
    """Return whether the object reappears farther along its path, and moves in the same direction."""
    jump = track.centre[after[0]] - track.centre[before[-1]]
    if np.hypot(*jump) < math.sqrt(track.typical / math.pi):
        return False
    steps = (track.centre[side[-1]] - track.centre[side[0]] for side in (before, after) if len(side) > 1)
    return all(float(jump @ step) >= 0.7 * np.hypot(*jump) * np.hypot(*step) for step in steps)


def _has_occluder(
    track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], before: Frames, hidden: Frames, after: Frames
) -> bool:
    """Return whether the position of the hidden object differs from the background."""
    _, height, width, _ = video_TYXC.shape
    middle = (track.centre[before[-1]] + track.centre[after[0]]) / 2
    y, x = np.mgrid[:height, :width] + 0.5
    disc = np.hypot(x - middle[0], y - middle[1]) < max(1.0, 0.6 * math.sqrt(track.typical / math.pi))
    if not disc.any():
        return False
    grey = video_TYXC.mean(axis=-1)
    neutral = np.ptp(video_TYXC, axis=-1) < 0.2
    if not neutral.any():
        return False
    return bool(abs(grey[hidden][:, disc].mean() - np.median(grey[neutral])) > CONTRAST)


def _same_hue(track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], before: Frames, after: Frames) -> bool:
    sides = []
    for side in (before, after):
        weight = track.cover[side] * (track.cover[side] > 0.5)
        sides.append(chroma((video_TYXC[side] * weight[..., None]).sum(axis=(0, 1, 2))))
    hues = degrees(np.stack(sides))
    return bool(apart(hues[:1], hues[1:])[0] < SAME_HUE)
