"""The motion of an object: whether its path is a line, has a turning point, or is a circle."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Complex, Float, Shaped

# Lengths in units of the frame's short side, angles in radians, time from 0 to 1 over the clip.
STILL = 0.1
STRAIGHT = 0.9
OFF_AXIS = math.radians(35)
LEG = 0.07
HALF_TURN = 0.8 * math.pi
# The largest deviation from the model, as a share of the path's extent.
ROUGH = 0.16


def motion_of(time: Float[np.ndarray, " N"], position: Float[np.ndarray, "N 2"]) -> tuple[str | None, float]:
    """Return the motion along observed positions (x, y; y downwards), and a confidence from 0 to 1.

    None for fewer than four positions. Other motions than the world's are "still", "anticlockwise", "diagonal" and
    "unclear".
    """
    if len(time) < 4:
        return None, 0.0
    path = position[:, 0] + 1j * position[:, 1]
    extent = float(np.ptp(position, axis=0).max())
    if extent < STILL:
        return "still", 1 - extent / STILL
    ahead = path[-1] - path[0]
    straightness = float(abs(ahead) / np.abs(np.diff(_smooth(path))).sum())
    if straightness > STRAIGHT and abs(ahead) > STILL:
        return _direction(ahead), min(1.0, (straightness - STRAIGHT) / (1 - STRAIGHT))
    (bent, turned_back), (round_, turn, radius) = _best_bend(time, path), _best_circle(time, path)
    confidence = 1 - min(bent, round_) / max(bent, round_, 1e-9)
    if min(bent, round_) > ROUGH * extent:
        return "unclear", 0.0
    if bent < round_:
        return ("bounce" if turned_back else "unclear"), confidence
    if abs(turn) * np.ptp(time) < HALF_TURN or radius < STILL / 2:
        return "unclear", 0.0
    return ("clockwise" if turn > 0 else "anticlockwise"), confidence


def _smooth(path: Complex[np.ndarray, " N"]) -> Complex[np.ndarray, " N"]:
    """Average neighbors slightly, so that jitter does not lengthen the path."""
    inner = (path[:-2] + 2 * path[1:-1] + path[2:]) / 4
    return np.concatenate([path[:1], inner, path[-1:]])


def _direction(ahead: complex) -> str:
    angle = math.atan2(ahead.imag, ahead.real)
    for name, axis in (("right", 0.0), ("down", math.pi / 2), ("left", math.pi), ("up", -math.pi / 2)):
        if abs((angle - axis + math.pi) % (2 * math.pi) - math.pi) < OFF_AXIS:
            return name
    return "diagonal"


def _fits(
    time: Float[np.ndarray, " N"], path: Complex[np.ndarray, " N"], extra: Shaped[np.ndarray, "K N"]
) -> tuple[Float[np.ndarray, " K"], Complex[np.ndarray, "K 3"]]:
    """Fit the path by a constant velocity plus an extra term, by least squares, for each of K extra terms.

    Returns:
        Root mean square deviations, and the complex coefficients: position, velocity, and that of the extra term.
    """
    plain = np.broadcast_to(np.stack([np.ones_like(time), time], axis=-1), (len(extra), len(time), 2))
    basis = np.concatenate([plain, extra[..., None]], axis=-1)
    weights = np.linalg.pinv(basis) @ path
    return np.sqrt(np.mean(np.abs(path - np.einsum("knw,kw->kn", basis, weights)) ** 2, axis=-1)), weights


def _best_bend(time: Float[np.ndarray, " N"], path: Complex[np.ndarray, " N"]) -> tuple[float, bool]:
    """Fit two constant velocities, before and after a moment; returns the deviation, and whether it is a reversal.

    A reversal has a long enough leg on either side of the moment.
    """
    moments = np.linspace(time[1], time[-2], 25)
    errors, weights = _fits(time, path, np.abs(time - moments[:, None]))
    best = int(errors.argmin())
    _, velocity, change = (complex(weight) for weight in weights[best])
    before, after = velocity - change, velocity + change
    legs = abs(before) * (moments[best] - time[0]), abs(after) * (time[-1] - moments[best])
    turned_back = (before * after.conjugate()).real < -0.5 * abs(before) * abs(after)
    return float(errors[best]), bool(turned_back and min(legs) >= LEG)


def _best_circle(time: Float[np.ndarray, " N"], path: Complex[np.ndarray, " N"]) -> tuple[float, float, float]:
    """Fit a circle at constant speed with a drifting center; returns deviation, radians per clip, radius."""
    turns = np.linspace(0.45, 1.3, 18) * 2 * math.pi
    turns = np.concatenate([turns, -turns])
    errors, weights = _fits(time, path, np.exp(1j * turns[:, None] * time))
    best = int(errors.argmin())
    return float(errors[best]), float(turns[best]), float(abs(weights[best, 2]))
