"""Segmentation of a clip by hue: its hues, their masks, and how much of each pixel they cover.

Backgrounds and occluders are neutral by the world's rules, so saturated pixels belong to objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from videodit.evals.toyworld.world import World

# A pixel belongs to an object from this share of the palette's saturation on: faded and half-covered ones do.
SATURATED = 0.36
BINS, BANDWIDTH = 120, 9.0
# Hues closer than this many degrees are one color.
DISTINCT = 25.0
# Each hue of a clip has at least this share of the strongest one.
MINOR = 0.02
# Pixels farther than this many degrees from every hue of the clip belong to none.
REACH = 45.0


@dataclass(frozen=True)
class Hue:
    """A hue of a clip: its name, the margin over the next name (0 to 1), its pixels, and how much of each it covers."""

    name: str
    margin: float
    mask: Bool[np.ndarray, "T Y X"]
    cover: Float[np.ndarray, "T Y X"]


def as_unit(frames: UInt8[np.ndarray, "T Y X 3"] | Float[np.ndarray, "T Y X 3"]) -> Float[np.ndarray, "T Y X 3"]:
    """Return frames as float32 in [0, 1], from uint8 or from floats in [-1, 1]; NaN becomes black."""
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / 255
    return np.clip(np.nan_to_num(frames.astype(np.float32), nan=-1.0) / 2 + 0.5, 0, 1)


def chroma(rgb: Float[np.ndarray, "*dims 3"]) -> Float[np.ndarray, "*dims 2"]:
    """Return the component of a color orthogonal to the greys."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    return np.stack([(2 * red - green - blue) / np.sqrt(6), (green - blue) / np.sqrt(2)], axis=-1)


def degrees(uv: Float[np.ndarray, "*dims 2"]) -> Float[np.ndarray, "*dims"]:
    """Return the hue angle of a chroma, 0 to 360."""
    return np.degrees(np.arctan2(uv[..., 1], uv[..., 0])) % 360


def apart(one: Float[np.ndarray, "*#dims"], two: Float[np.ndarray, "*#dims"] | float) -> Float[np.ndarray, "*#dims"]:
    """Return the angle between two hues, 0 to 180."""
    return np.abs((one - two + 180) % 360 - 180)


def hues_of(video_TYXC: Float[np.ndarray, "T Y X 3"], world: World) -> list[Hue]:
    """Return the hues of the objects in a clip in [0, 1], each with enough pixels for an object."""
    uv = chroma(video_TYXC).reshape(-1, 2)
    uv -= np.median(uv, axis=0)
    strength = np.hypot(uv[:, 0], uv[:, 1])
    palette = chroma(np.array(list(world.palette.values()), np.float32) / 255)
    full, angles = np.linalg.norm(palette, axis=-1), degrees(palette)
    where = np.flatnonzero(strength > SATURATED * full.min())
    angle = degrees(uv[where])
    enough = strength[where] > SATURATED * full[np.argmin(apart(angle[:, None], angles), axis=-1)]
    where, angle = where[enough], angle[enough]

    shape = video_TYXC.shape[:3]
    least = 0.3 * world.area_range[0] * min(shape[1:]) ** 2
    peaks = _peaks(angle, strength[where], least * max(1.0, 0.3 * shape[0]))
    if not len(peaks):
        return []
    distance = apart(angle[:, None], peaks)
    owner = np.where(distance.min(axis=-1) < REACH, np.argmin(distance, axis=-1), -1)
    around = _background(video_TYXC, dilate(_mask(where, shape)))
    hues = []
    for index, peak in enumerate(peaks):
        off = apart(angles, float(peak))
        first, second = np.sort(off)[:2] if len(off) > 1 else (off[0], 180.0)
        mask = _mask(where[owner == index], shape)
        cover = _cover(video_TYXC, around, mask, strength.reshape(shape))
        name = list(world.palette)[int(off.argmin())]
        hues.append(Hue(name, float((second - first) / (second + first)), mask, cover))
    return hues


def _mask(where: Int[np.ndarray, " N"], shape: tuple[int, ...]) -> Bool[np.ndarray, "T Y X"]:
    mask = np.zeros(shape, bool)
    mask.flat[where] = True
    return mask


def _peaks(angles: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"], least: float) -> Float[np.ndarray, " K"]:
    """Return the hues that at least `least` pixels are near."""
    step = 360 / BINS
    histogram = np.bincount((angles / step).astype(int) % BINS, weights, BINS)
    offset = (np.arange(BINS) + BINS // 2) % BINS - BINS // 2
    kernel = np.exp(-0.5 * (offset * step / BANDWIDTH) ** 2)
    smooth = np.fft.ifft(np.fft.fft(histogram) * np.fft.fft(kernel)).real
    tops = np.flatnonzero((smooth >= np.roll(smooth, 1)) & (smooth > np.roll(smooth, -1)))
    hues: list[float] = []
    for top in tops[np.argsort(-smooth[tops])]:
        if smooth[top] < MINOR * smooth.max():
            break
        hue = (float(top) + 0.5) * step
        near = apart(angles, hue) < 20
        if near.sum() >= least and (apart(np.array(hues), hue) >= DISTINCT).all():
            hues.append(hue)
    return np.array(hues, np.float32)


def dilate(mask: Bool[np.ndarray, "T Y X"], pixels: int = 1) -> Bool[np.ndarray, "T Y X"]:
    """Dilate a mask by a square of 2 `pixels` + 1."""
    for axis in (1, 2):
        padded = np.pad(mask, [(pixels, pixels) if axis == k else (0, 0) for k in range(3)])
        size = mask.shape[axis]
        mask = np.any([padded.take(range(k, k + size), axis=axis) for k in range(2 * pixels + 1)], axis=0)
    return mask


def _background(
    video_TYXC: Float[np.ndarray, "T Y X 3"], object_TYX: Bool[np.ndarray, "T Y X"]
) -> Float[np.ndarray, "Y X 3"]:
    """Return the mean of each pixel over frames without an object, or the mean background without such frames."""
    free = ~object_TYX[..., None]
    count, total = free.sum(axis=0), (video_TYXC * free).sum(axis=0)
    mean = total.sum(axis=(0, 1)) / max(1, count.sum())
    return np.where(count > 0, total / np.maximum(count, 1), mean).astype(np.float32)


def _cover(
    video_TYXC: Float[np.ndarray, "T Y X 3"],
    around_YXC: Float[np.ndarray, "Y X 3"],
    mask: Bool[np.ndarray, "T Y X"],
    strength: Float[np.ndarray, "T Y X"],
) -> Float[np.ndarray, "T Y X"]:
    """Return how much of each pixel near the mask a hue covers: 0 is the background, 1 the full color."""
    full = mask & (strength >= np.quantile(strength[mask], 0.5))
    direction = video_TYXC[full].mean(axis=0) - around_YXC
    share = ((video_TYXC - around_YXC) * direction).sum(axis=-1) / np.maximum(
        (direction * direction).sum(axis=-1), 1e-3
    )
    return np.where(dilate(mask), np.clip(share, 0, 1), 0)


def label_components(mask: Bool[np.ndarray, "T Y X"]) -> Int[np.ndarray, "T Y X"]:
    """Number the connected components (8 neighbors) of all frames from 1 up; 0 outside the mask."""
    size = mask.size
    labels = np.where(mask, np.arange(size).reshape(mask.shape), size)
    while True:
        padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)), constant_values=size)
        rows = np.minimum(np.minimum(padded[:, :-2], padded[:, 2:]), padded[:, 1:-1])
        lowest = np.minimum(np.minimum(rows[..., :-2], rows[..., 2:]), rows[..., 1:-1])
        lowest = np.where(mask, lowest, size)
        # A label is the index of a pixel in the same component: following it speeds up long components.
        lowest = np.append(lowest, size)[lowest]
        if (lowest == labels).all():
            break
        labels = lowest
    return np.where(mask, np.searchsorted(np.unique(labels[mask]), labels) + 1, 0)
