"""QK-norm with RoPE for the simulator: our kernel, and what XLA compiles from the formulas.

The simulator has no model of strided copies. Our kernel makes such copies with more than one head, XLA's always.
"""

import jax

from videodit_kernels.qknorm import reference, tpu
from videodit_kernels.simulator import Kernel


def build_kernel(which: str, *, ours: bool, seq: int, dim: int, heads: int) -> Kernel:
    """Build the norm of heads [1, heads, seq, dim] in bfloat16; "bwd" includes the forward pass."""

    def op(x, scale, cos, sin):
        x = x.swapaxes(1, 2)
        if ours:
            return tpu.norm_rope(x, scale, cos, sin, 1e-6, False).swapaxes(1, 2)
        return reference.norm_rope(x, scale, cos, sin, 1e-6).swapaxes(1, 2)

    def both(x, scale, cos, sin, dy):
        out, pull = jax.vjp(lambda x, scale: op(x, scale, cos, sin), x, scale)
        return out, pull(dy)

    x = jax.ShapeDtypeStruct((1, heads, seq, dim), "bfloat16")
    scale, angles = jax.ShapeDtypeStruct((dim,), "float32"), jax.ShapeDtypeStruct((1, seq, dim // 2), "float32")
    arguments = [x, scale, angles, angles]
    if which == "fwd":
        return Kernel(op, arguments, "videodit_qknorm_fwd", 0, 1)
    return Kernel(both, [*arguments, x], "videodit_qknorm_bwd", 0, 1)
