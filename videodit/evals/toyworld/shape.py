"""The shape of an object: its mean cover over frames, centered and scaled, compared with a template of each shape."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from videodit.evals.toyworld.track import Track
from videodit.evals.toyworld.world import World, polygon_area

# A patch holds GRID x GRID samples over +-EXTENT radii, the radius being that of a disc of the object's area.
GRID, EXTENT, FINE = 24, 2.1, 4
TURNS = (-12.0, -6.0, 0.0, 6.0, 12.0)
BLURS = (0.06, 0.15, 0.25, 0.4)
# Correlations below this match no shape.
LIKE = 0.85


def shape_of(track: Track, world: World, among: Bool[np.ndarray, " T"]) -> tuple[str | None, float]:
    """Return the shape of an object, and the margin over the next likely one, a difference of correlations.

    Args:
        among: the frames to use, of which those that show the whole object count.

    Returns:
        None as the shape if there is no such frame or no shape matches.
    """
    frames = track.whole(among)
    if not frames.any():
        return None, 0.0
    patch = np.mean(
        [_patch(track.cover[t], track.centre[t], float(track.area[t])) for t in np.flatnonzero(frames)], axis=0
    )
    names, templates = _templates(world)
    alike = templates @ _standard(patch.ravel())
    best = {
        name: max(score for score, other in zip(alike, names, strict=True) if other == name) for name in world.shapes
    }
    ranked = sorted(best, key=lambda name: -best[name])
    margin = float(best[ranked[0]] - best[ranked[1]]) if len(ranked) > 1 else 1.0
    return (ranked[0] if best[ranked[0]] >= LIKE else None), margin


def _standard(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-9)


def _offsets() -> Float[np.ndarray, " G"]:
    return (np.arange(GRID) + 0.5) * (2 * EXTENT / GRID) - EXTENT


def _patch(
    cover_YX: Float[np.ndarray, "Y X"], centre: Float[np.ndarray, " 2"], area: float
) -> Float[np.ndarray, "G G"]:
    """Sample the cover around a center bilinearly on a grid that scales with the object."""
    reach = _offsets() * math.sqrt(area / math.pi)
    columns, rows = _taps(centre[0] + reach, cover_YX.shape[1]), _taps(centre[1] + reach, cover_YX.shape[0])
    return rows @ cover_YX @ columns.T


def _taps(at: Float[np.ndarray, " G"], size: int) -> Float[np.ndarray, "G N"]:
    """Return linear interpolation along an axis as a matrix, zero outside; pixel k is centered at k + 1/2."""
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - 0.5 - np.arange(size)))


@lru_cache(maxsize=8)
def _templates(world: World) -> tuple[list[str], Float[np.ndarray, "K N"]]:
    """Return every shape, rotated a little and blurred, as standardized patches."""
    names, patches = [], []
    blurs = [_blur(width) for width in BLURS]
    for name, corners in world.outlines.items():
        centred = (corners - _centroid(corners)) / math.sqrt(abs(polygon_area(corners)) / math.pi)
        for turn in np.radians(TURNS):
            spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
            sharp = _filled(centred @ spin.T)
            for blur in blurs:
                patch = (blur @ sharp @ blur.T).reshape(GRID, FINE, GRID, FINE).mean(axis=(1, 3))
                names.append(name)
                patches.append(_standard(patch.ravel()))
    return names, np.array(patches)


def _centroid(corners: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, " 2"]:
    ahead = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * ahead[:, 1] - ahead[:, 0] * corners[:, 1]
    return ((corners + ahead) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def _filled(corners: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, "F F"]:
    """Rasterize a polygon on the fine grid: 1 inside, 0 outside, by counting the edges to the right of each point."""
    at = (np.arange(GRID * FINE) + 0.5) * (2 * EXTENT / (GRID * FINE)) - EXTENT
    x, y = at[None, :, None], at[:, None, None]
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    slope = (x1 - x0) / np.where(y1 == y0, 1.0, y1 - y0)
    crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * slope)
    return (crossed.sum(axis=-1) % 2).astype(np.float64)


def _blur(width: float) -> Float[np.ndarray, "F F"]:
    """Return a Gaussian blur along an axis as a matrix; `width` is its standard deviation in radii."""
    at = np.arange(GRID * FINE) * (2 * EXTENT / (GRID * FINE))
    weights = np.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)
