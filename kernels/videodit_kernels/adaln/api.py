"""Choice of the implementation that computes adaLN, and errors that say why one cannot."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from videodit_kernels import target
from videodit_kernels.adaln import reference, tpu


def adaln(
    x: Num[Array, "B L D"],
    scale: Float[Array, "B #L D"],
    shift: Float[Array, "B #L D"],
    *,
    y: Num[Array, "B L D"] | None = None,
    gate: Float[Array, "B #L D"] | None = None,
    eps: float = 1e-6,
    implementation: str | None = None,
) -> tuple[Num[Array, "B L D"], Num[Array, "B L D"]]:
    """Compute `r = x + gate y` and `layer_norm(r) (1 + scale) + shift` (adaLN, Peebles and Xie 2023); float32 inside.

    Args:
        x: tokens, bfloat16 or float32.
        scale, shift: modulation of every clip [B, 1, D] or token [B, L, D], float32.
        y: what a branch adds to `x`; None for nothing.
        gate: factor on `y`, as `scale`; 1 by default.
        implementation: None for the best that serves the device and shapes.

    Returns `r` and the modulated norm, [B, L, D] in the type of `x`.

    Raises:
        ValueError: for an implementation that is unknown or cannot serve the call.
    """
    if gate is not None and y is None:
        raise ValueError("a gate is for y, and there is no y")
    name = target.choose_implementation(implementation, tpu.find_obstacle(x, y, scale, shift, gate))
    if name == "reference":
        return reference.adaln(x, y, gate, scale, shift, eps)
    modulation = [jnp.ones_like(scale) if gate is None else gate, scale, shift]
    return tpu.adaln(x, y, *modulation, eps, name == "tpu_interpret")
