"""Object permanence: whether a thing passes behind something and comes out on the far side as the same thing."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from videodit.evals.toyworld.segment import apart, chroma, degrees
from videodit.evals.toyworld.shape import shape_of
from videodit.evals.toyworld.track import Track
from videodit.evals.toyworld.world import World

Frames = Int[np.ndarray, " _"]  # some frames' numbers, ascending

REAPPEARS = "reappears"

# A thing is hidden where no more than this share of it shows.
HIDDEN = 0.08
# What hides it is this much lighter or darker than the background, in [0, 1].
CONTRAST = 0.1
SAME_HUE = 30.0


def permanence_of(track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], world: World) -> str:
    """ "reappears" if the object hides behind something and comes out on the far side as it was, else what is amiss."""
    hidden = track.area < HIDDEN * track.typical
    shown = np.flatnonzero(~hidden)
    inside = np.flatnonzero(hidden[shown[0] : shown[-1]]) + shown[0]
    if not len(inside):
        if shown[-1] < len(hidden) - 1:
            return "does not come back"
        return "always in view" if shown[0] == 0 else "not there at first"
    before, after = shown[shown < inside[0]], shown[shown > inside[-1]]
    if not _goes_on(track, before, after):
        return "does not come out on the far side"
    if not _something_before_it(track, video_TYXC, before, inside, after):
        return "vanishes with nothing before it"
    if not _same_hue(track, video_TYXC, before, after):
        return "comes back in another colour"
    first, second = (shape_of(track, world, np.isin(np.arange(len(hidden)), side))[0] for side in (before, after))
    if first is not None and second is not None and first != second:
        return "comes back in another shape"
    return REAPPEARS


def _goes_on(track: Track, before: Frames, after: Frames) -> bool:
    """Whether the object comes back farther along the way it went, and goes on so."""
    jump = track.centre[after[0]] - track.centre[before[-1]]
    if np.hypot(*jump) < math.sqrt(track.typical / math.pi):
        return False
    ways = (track.centre[side[-1]] - track.centre[side[0]] for side in (before, after) if len(side) > 1)
    return all(float(jump @ way) >= 0.7 * np.hypot(*jump) * np.hypot(*way) for way in ways)


def _something_before_it(
    track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], before: Frames, hidden: Frames, after: Frames
) -> bool:
    """Whether the place where the object must be while hidden looks unlike the background."""
    _, height, width, _ = video_TYXC.shape
    middle = (track.centre[before[-1]] + track.centre[after[0]]) / 2
    y, x = np.mgrid[:height, :width] + 0.5
    there = np.hypot(x - middle[0], y - middle[1]) < max(1.0, 0.6 * math.sqrt(track.typical / math.pi))
    if not there.any():
        return False
    grey = video_TYXC.mean(axis=-1)
    neutral = np.ptp(video_TYXC, axis=-1) < 0.2
    if not neutral.any():
        return False
    return bool(abs(grey[hidden][:, there].mean() - np.median(grey[neutral])) > CONTRAST)


def _same_hue(track: Track, video_TYXC: Float[np.ndarray, "T Y X 3"], before: Frames, after: Frames) -> bool:
    sides = []
    for side in (before, after):
        weight = track.cover[side] * (track.cover[side] > 0.5)
        sides.append(chroma((video_TYXC[side] * weight[..., None]).sum(axis=(0, 1, 2))))
    hues = degrees(np.stack(sides))
    return bool(apart(hues[:1], hues[1:])[0] < SAME_HUE)
