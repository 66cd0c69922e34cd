"""Rotary position embedding over (time, y, x), from a position for every token."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from videodit_kernels import qknorm

from videodit.parallel.context import HEADS
from videodit.parallel.rules import map_per_device
from videodit.shapes import Heads, Positions

Split = tuple[int, int, int]


def default_split(head_dim: int) -> Split:
    """Return how many dimensions of a head rotate with (t, y, x): Wan's split, a third each, time rounded up."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rope_tables(
    positions_BL3: Positions, split: Split, theta: float = 10000.0
) -> tuple[Float[Array, "B L h"], Float[Array, "B L h"]]:
    """Return cosine and sine of every rotation angle in float32, half a head's width of each.

    Angle i of an axis with n dimensions is `position * theta ** (-2 i / n)` (Su et al. 2021); the axes' angles are laid
    one after the other in the order (t, y, x).
    """
    frequencies = [theta ** (-np.arange(0, n, 2, dtype=np.float64) / n) for n in split]
    angles_BLh = jnp.concatenate(
        [positions_BL3[..., i, None].astype(jnp.float32) * f.astype(np.float32) for i, f in enumerate(frequencies)],
        axis=-1,
    )
    return jnp.cos(angles_BLh), jnp.sin(angles_BLh)


def apply_rope(x_BLNH: Heads, cos_BLh: Float[Array, "B L h"], sin_BLh: Float[Array, "B L h"]) -> Heads:
    """Rotate dimension i of every head against dimension i + H/2 by angle i; keeps the type of `x`.

    Checkpoints that pair dimension 2i with 2i + 1 fit after their query and key dimensions are put in `paired_order`:
    attention sees only products of the two, so a common order of dimensions leaves no trace.
    """
    angles = ("batch", "tokens", None)
    return map_per_device(qknorm.apply_rope, (HEADS, angles, angles), HEADS)(x_BLNH, cos_BLh, sin_BLh)


def paired_order(head_dim: int) -> np.ndarray:
    """Return, for every dimension of a head here, its index in a checkpoint that rotates neighbours (2i, 2i + 1)."""
    return np.arange(head_dim).reshape(-1, 2).T.ravel()
