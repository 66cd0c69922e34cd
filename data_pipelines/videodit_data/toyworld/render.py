"""Rendering: a scene to frames, every edge anti-aliased from its signed distance."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from jaxtyping import Float, UInt8

from videodit_data.toyworld.scene import Background, Occluder, Scene, Thing
from videodit_data.toyworld.world import PALETTE, TONES, Shape

OCCLUDER_TONE = np.array([142.0, 138.0, 132.0], np.float32)


def render(scene: Scene, times: Float[np.ndarray, " T"], height: int, width: int) -> UInt8[np.ndarray, "T Y X 3"]:
    """Return the scene's frames at the given times; the frame's short side is one unit whatever its size in pixels."""
    pixels = min(height, width)
    camera = scene.camera(times).astype(np.float32)
    x_TX = (np.arange(width, dtype=np.float32) + 0.5) / pixels + camera[:, :1]
    y_TY = (np.arange(height, dtype=np.float32) + 0.5) / pixels + camera[:, 1:]
    video_TYXC = _background(scene.background, x_TX, y_TY)
    for thing in scene.things:
        _paint_thing(video_TYXC, thing, thing.path.at(times).astype(np.float32), x_TX, y_TY, pixels)
    if scene.occluder:
        _paint_occluder(video_TYXC, scene.occluder, x_TX, y_TY, pixels)
    return (np.clip(video_TYXC, 0, 255) + 0.5).astype(np.uint8)


def signed_distance(
    shape: Shape, x: Float[np.ndarray, "*#dims"], y: Float[np.ndarray, "*#dims"]
) -> Float[np.ndarray, "*dims"]:
    """Return the distance to the outline of a shape of radius 1 around the origin, negative inside, corners mitred."""
    if not shape.corners:
        return np.hypot(x, y) - np.float32(1)
    edges = zip(shape.corners, shape.corners[1:] + shape.corners[:1], strict=True)
    return reduce(np.maximum, (_beyond(start, end, x, y) for start, end in edges))


def _beyond(
    start: tuple[float, float],
    end: tuple[float, float],
    x: Float[np.ndarray, "*#dims"],
    y: Float[np.ndarray, "*#dims"],
) -> Float[np.ndarray, "*dims"]:
    """Return the distance of points to the left of the line from `start` to `end`."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = math.hypot(along_x, along_y)
    out_x, out_y = along_y / length, -along_x / length
    return np.float32(out_x) * x + np.float32(out_y) * y - np.float32(out_x * start[0] + out_y * start[1])


def _background(
    background: Background, x_TX: Float[np.ndarray, "T X"], y_TY: Float[np.ndarray, "T Y"]
) -> Float[np.ndarray, "T Y X 3"]:
    tone = np.array(TONES[background.tone], np.float32)
    frames, height, width = len(x_TX), y_TY.shape[1], x_TX.shape[1]
    if not background.waves:
        return np.broadcast_to(tone, (frames, height, width, 3)).copy()
    waves = [_wave(wave, x_TX, y_TY) for wave in background.waves]
    if background.texture in ("striped", "checkered"):
        field_TYX = np.prod([np.clip(4 * wave, -1, 1) for wave in waves], axis=0)
    else:
        field_TYX = np.clip(sum(waves) / np.float32(math.sqrt(len(waves))), -1, 1)
    return tone + np.float32(background.contrast) * field_TYX[..., None]


def _wave(
    wave: tuple[float, float, float], x_TX: Float[np.ndarray, "T X"], y_TY: Float[np.ndarray, "T Y"]
) -> Float[np.ndarray, "T Y X"]:
    """Return sin(2 pi (u x + v y) + phase), by the addition theorem from one row and one column per frame."""
    u, v, phase = wave
    across, down = np.float32(2 * math.pi * u) * x_TX, np.float32(2 * math.pi * v) * y_TY + np.float32(phase)
    row, column = np.exp(1j * across).astype(np.complex64), np.exp(1j * down).astype(np.complex64)
    return (column.imag[:, :, None] * row.real[:, None] + column.real[:, :, None] * row.imag[:, None]).astype(
        np.float32
    )


def _paint_thing(
    video_TYXC: Float[np.ndarray, "T Y X 3"],
    thing: Thing,
    center_T2: Float[np.ndarray, "T 2"],
    x_TX: Float[np.ndarray, "T X"],
    y_TY: Float[np.ndarray, "T Y"],
    pixels: int,
) -> None:
    """Paint a thing in place, touching only the window of each frame that it can reach."""
    reach = thing.outline.reach * thing.radius + 2 / pixels
    color = np.array(PALETTE[thing.colour], np.float32)
    for frame, (x, y) in enumerate(center_T2):
        columns = slice(*np.searchsorted(x_TX[frame], (x - reach, x + reach)))
        rows = slice(*np.searchsorted(y_TY[frame], (y - reach, y + reach)))
        dx = (x_TX[frame, None, columns] - x) / np.float32(thing.radius)
        dy = (y_TY[frame, rows, None] - y) / np.float32(thing.radius)
        distance = signed_distance(thing.outline, dx, dy) * np.float32(thing.radius * pixels)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        window = video_TYXC[frame, rows, columns]
        window += cover * (color - window)


def _paint_occluder(
    video_TYXC: Float[np.ndarray, "T Y X 3"],
    occluder: Occluder,
    x_TX: Float[np.ndarray, "T X"],
    y_TY: Float[np.ndarray, "T Y"],
    pixels: int,
) -> None:
    def ramp(at: Float[np.ndarray, "T N"], low: float, high: float) -> Float[np.ndarray, "T N"]:
        return np.clip(0.5 + np.minimum(at - np.float32(low), np.float32(high) - at) * pixels, 0, 1)

    cover_TX = ramp(x_TX, occluder.near[0], occluder.far[0])
    cover_TY = ramp(y_TY, occluder.near[1], occluder.far[1])
    cover_TYX = (cover_TY[:, :, None] * cover_TX[:, None])[..., None]
    planks_TYX = np.clip(3 * _wave((4.0, 4.0, 0.0), x_TX, y_TY), -1, 1)[..., None]
    video_TYXC += cover_TYX * (OCCLUDER_TONE + np.float32(14) * planks_TYX - video_TYXC)
