"""Patches of clips, their positions, and the embedding of time."""

import einops
import jax.numpy as jnp
from jaxtyping import Array, Float

from videodit.shapes import Patches, Positions, Video

Patch = tuple[int, int, int]


def token_grid(shape: tuple[int, int, int], patch: Patch) -> tuple[int, int, int]:
    """Count the tokens along (t, y, x) of a clip of `shape` (frames, height, width).

    Raises:
        ValueError: when a side is not a multiple of its patch.
    """
    for side, size, step in zip(("frames", "height", "width"), shape, patch, strict=True):
        if size % step:
            raise ValueError(
                f"the {side} of a clip must be a multiple of the patch: {size} is not a multiple of {step}"
            )
    return shape[0] // patch[0], shape[1] // patch[1], shape[2] // patch[2]


def patchify(video_BTYXC: Video, patch: Patch) -> Patches:
    """Cut clips into tokens in raster order (t, y, x), each the features of one patch in the order (t, y, x, channel).

    Raises:
        ValueError: when a side is not a multiple of its patch.
    """
    token_grid(video_BTYXC.shape[1:4], patch)
    pt, py, px = patch
    return einops.rearrange(video_BTYXC, "b (t pt) (y py) (x px) c -> b (t y x) (pt py px c)", pt=pt, py=py, px=px)


def unpatchify(x_BLP: Patches, grid: tuple[int, int, int], patch: Patch) -> Video:
    """Invert `patchify`; `grid` is the number of tokens along (t, y, x)."""
    (t, y, x), (pt, py, px) = grid, patch
    return einops.rearrange(
        x_BLP, "b (t y x) (pt py px c) -> b (t pt) (y py) (x px) c", t=t, y=y, x=x, pt=pt, py=py, px=px
    )


def grid_positions(grid: tuple[int, int, int], time_step_B: Float[Array, "B"]) -> Positions:
    """Return the position (t, y, x) of every token of a clip in raster order, in units of tokens.

    `time_step` is the distance between neighbouring frames of latents in each clip: 1, or for example
    `fps_reference / fps`, so that equal positions mean equal seconds.
    """
    index_L3 = jnp.stack([i.ravel() for i in jnp.indices(grid, dtype=jnp.float32)], axis=-1)
    step_B13 = jnp.stack([time_step_B, jnp.ones_like(time_step_B), jnp.ones_like(time_step_B)], axis=-1)[:, None]
    return index_L3 * step_B13


def sinusoidal(value: Float[Array, "*batch"], size: int, max_period: float = 10000.0) -> Float[Array, "*batch {size}"]:
    """Return `[cos(value f), sin(value f)]` for `size / 2` frequencies f from 1 to nearly 1 / `max_period`; float32."""
    half = size // 2
    frequencies = max_period ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = value.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
