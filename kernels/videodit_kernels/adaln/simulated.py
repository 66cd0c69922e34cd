"""adaLN for the simulator: our kernels, and what XLA compiles from the formulas."""

import jax

from videodit_kernels.adaln import reference, tpu
from videodit_kernels.simulator import Kernel


def build_kernel(which: str, *, ours: bool, seq: int, dim: int, heads: int) -> Kernel:
    """Build residual, norm and modulation of [1, seq, heads * dim] in bfloat16; "bwd" includes the forward pass."""

    def op(x, y, gate, scale, shift):
        if ours:
            return tpu.adaln(x, y, gate, scale, shift, 1e-6, False)
        return reference.adaln(x, y, gate, scale, shift, 1e-6)

    def both(*args):
        out, pull = jax.vjp(op, *args[:5])
        return out, pull(args[5:])

    tokens = jax.ShapeDtypeStruct((1, seq, heads * dim), "bfloat16")
    row = jax.ShapeDtypeStruct((1, 1, heads * dim), "float32")
    arguments = [tokens, tokens, row, row, row]
    if which == "fwd":
        return Kernel(op, arguments, "videodit_adaln_fwd", 0, 1)
    return Kernel(both, [*arguments, tokens, tokens], "videodit_adaln_bwd", 0, 1)
