"""Decoding frames in overlapping tiles, so that memory grows with the tile and not with the frame."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from videodit.models.vae import VAE


def decode_tiled(
    vae: VAE, z_BTYXC: Float[Array, "B t y x C"], *, tile: int, overlap: int, chunk: int | None = None
) -> Float[Array, "B T Y X 3"]:
    """Decode a latent tile by tile, blended where tiles overlap by weights that fall linearly to their borders.

    It differs from `vae.decode` near the borders of tiles, and in the autoencoder's attention over a whole frame.

    Args:
        tile: side of a tile, latents; frames that are no larger are decoded whole.
        overlap: of neighbouring tiles, latents, less than the tile.
        chunk: as for `VAE.decode`.

    Raises:
        ValueError: when tiles would not overlap, or would not move on.
    """
    if not 0 < overlap < tile:
        raise ValueError(f"tiles of {tile} latents overlap by {overlap}: it must be above 0 and below the tile")
    height, width = z_BTYXC.shape[2:4]
    sides = min(tile, height), min(tile, width)
    if sides == (height, width):
        return vae.decode(z_BTYXC, chunk=chunk)
    corners = [(y, x) for y in _starts(height, sides[0], overlap) for x in _starts(width, sides[1], overlap)]
    scale = vae.cfg.space_stride
    ramps = (_ramp(side * scale, overlap * scale) for side in sides)
    weight_YX1 = jnp.asarray(np.multiply.outer(*ramps)[..., None], jnp.float32)

    def add(total: tuple[Array, Array], corner: Array) -> tuple[tuple[Array, Array], None]:
        video, weights = total
        y, x = corner
        part = jax.lax.dynamic_slice(z_BTYXC, (0, 0, y, x, 0), (*z_BTYXC.shape[:2], *sides, z_BTYXC.shape[-1]))
        decoded = vae.decode(part, chunk=chunk) * weight_YX1
        at = (0, 0, y * scale, x * scale, 0)
        video = jax.lax.dynamic_update_slice(video, jax.lax.dynamic_slice(video, at, decoded.shape) + decoded, at)
        weight = jax.lax.dynamic_slice(weights, at[2:], weight_YX1.shape)
        return (video, jax.lax.dynamic_update_slice(weights, weight + weight_YX1, at[2:])), None

    frames = 1 + (z_BTYXC.shape[1] - 1) * vae.cfg.time_stride
    video = jnp.zeros((z_BTYXC.shape[0], frames, height * scale, width * scale, 3))
    total = video, jnp.zeros((height * scale, width * scale, 1))
    video, weights = jax.lax.scan(add, total, jnp.asarray(corners))[0]
    return video / weights


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin: as few as cover the side, evenly spaced."""
    count = 1 + -(-(size - tile) // (tile - overlap))
    return np.linspace(0, size - tile, count).round().astype(int).tolist()


def _ramp(size: int, overlap: int) -> Float[np.ndarray, "n"]:
    """Return weights that rise over the overlap, are one, and fall."""
    rising = (np.arange(size) + 1) / (overlap + 1)
    return np.minimum(np.minimum(rising, rising[::-1]), 1.0)
