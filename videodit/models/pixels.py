"""Pixels as bytes, and as floats in [-1, 1] as the models take them."""

import jax
import numpy as np
from jaxtyping import Float, Shaped, UInt8

ArrayLike = np.ndarray | jax.Array


def to_float(video: Shaped[ArrayLike, "*dims"]) -> Float[ArrayLike, "*dims"]:
    """Return bytes as float32 in [-1, 1], of NumPy or of JAX; floats are returned as they are."""
    return video.astype(np.float32) / np.float32(127.5) - 1 if video.dtype == np.uint8 else video


def to_uint8(video: Float[ArrayLike, "*dims"]) -> UInt8[ArrayLike, "*dims"]:
    """Return pixels in [-1, 1] as bytes, of NumPy or of JAX; what lies outside is clipped."""
    xp = video.__array_namespace__()
    return xp.round((xp.clip(video, -1.0, 1.0) + 1.0) * 127.5).astype(xp.uint8)
