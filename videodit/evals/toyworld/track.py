"""Objects of a clip: components of one hue tracked over frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from videodit.evals.toyworld.segment import Hue, dilate, label_components
from videodit.evals.toyworld.world import World

# Shares of an object's typical area: at least that of a second object of the same hue, and of a component at all.
ANOTHER, SPECK = 0.4, 0.05
# Limits of an object's area, in units of the world's smallest object (edges may fade) and of its largest.
LEAST, MOST = 0.35, 2.0
# An object must be visible in this share of the frames.
PRESENT = 0.3


@dataclass(frozen=True)
class Track:
    """An object over a clip; lengths in pixels.

    Attributes:
        area: covered area per frame, 0 if it is not visible.
        centre: (x, y) per frame, NaN if it is not visible.
        cut: whether it touches the border of the frame.
        typical: its area when it is wholly visible.
    """

    hue: Hue
    cover: Float[np.ndarray, "T Y X"]
    area: Float[np.ndarray, " T"]
    centre: Float[np.ndarray, "T 2"]
    cut: Bool[np.ndarray, " T"]
    typical: float

    @property
    def seen(self) -> Bool[np.ndarray, " T"]:
        """Which frames show at least half of it."""
        return self.area >= 0.5 * self.typical

    def whole(self, among: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
        """Return those of some frames that show the whole object, judged by its area.

        Frames in which it does not touch the border are preferred. None if all of them show much less than others.
        """
        full = min(self.typical, float(self.area[among].max(initial=0)))
        if full < 0.65 * self.typical:
            return np.zeros_like(among)
        fit = among & (self.area >= 0.85 * full) & (self.area <= 1.25 * full)
        return fit & ~self.cut if (fit & ~self.cut).any() else fit


def tracks_of(hues: list[Hue], world: World) -> list[Track]:
    """Return the objects of a clip, the largest first."""
    tracks = [track for hue in hues for track in _of_one_hue(hue, world)]
    return sorted(tracks, key=lambda track: -float(track.area.mean()))


def _of_one_hue(hue: Hue, world: World) -> list[Track]:
    """Return the objects of a hue: usually one, several if many frames have several components of similar size."""
    pieces = label_components(hue.mask)
    _, height, width = pieces.shape
    counts = np.bincount(pieces.ravel())
    in_frame = [np.unique(piece[piece > 0]) for piece in pieces]
    in_frame = [labels[np.argsort(-counts[labels])] for labels in in_frame]
    largest = np.array([counts[labels[0]] for labels in in_frame if len(labels)])
    if not len(largest):
        return []
    typical = float(np.quantile(largest, 0.8))
    least, most = (area * min(height, width) ** 2 for area in world.area_range)
    if not LEAST * least < typical < MOST * most:
        return []
    similar = np.array([(counts[labels] >= ANOTHER * typical).sum() for labels in in_frame])
    if (similar > 0).mean() < PRESENT:
        return []
    several = max(k for k in range(1, similar.max() + 1) if k == 1 or (similar >= k).mean() >= PRESENT)
    chosen = [labels[counts[labels] >= SPECK * typical][:several] for labels in in_frame]
    tracks = [_track(hue, pieces, chain) for chain in _chains(pieces, chosen, several)]
    # Objects that hardly differ from the background have a hue, but cover nothing.
    return [track for track in tracks if track.typical > LEAST * least]


def _chains(
    pieces: Int[np.ndarray, "T Y X"], chosen: list[Int[np.ndarray, " _"]], several: int
) -> Int[np.ndarray, "K T"]:
    """Return the component of each object in each frame (0: none), the nearest to its last position."""
    chains = np.zeros((several, len(pieces)), np.int64)
    last: list[Float[np.ndarray, " 2"] | None] = [None] * several
    for frame, labels in enumerate(chosen):
        where = {int(label): np.argwhere(pieces[frame] == label).mean(axis=0) for label in labels}
        pairs = [
            (0.0 if before is None else float(np.hypot(*(at - before))), k, label)
            for k, before in enumerate(last)
            for label, at in where.items()
        ]
        for _, k, label in sorted(pairs):
            if chains[k, frame] == 0 and label not in chains[:, frame]:
                chains[k, frame], last[k] = label, where[label]
    return chains


def _track(hue: Hue, pieces: Int[np.ndarray, "T Y X"], chain: Int[np.ndarray, " T"]) -> Track:
    mine = (pieces == chain[:, None, None]) & (chain > 0)[:, None, None]
    others = (pieces > 0) & ~mine
    cover = hue.cover * (dilate(mine) & ~others)
    _, height, width = cover.shape
    area = cover.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        x = (cover.sum(axis=1) @ (np.arange(width) + 0.5)) / area
        y = (cover.sum(axis=2) @ (np.arange(height) + 0.5)) / area
    border = np.ones((height, width), bool)
    border[1:-1, 1:-1] = False
    cut = ((cover > 0.5) & border).any(axis=(1, 2))
    typical = float(np.quantile(area[area > 0], 0.75)) if area.any() else 0.0
    return Track(hue, cover, area, np.stack([x, y], axis=-1), cut, typical)
