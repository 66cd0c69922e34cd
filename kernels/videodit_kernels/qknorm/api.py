"""Choice of the implementation that computes QK-norm, and errors that say why one cannot."""

from jax import Array
from jaxtyping import Float, Num

from videodit_kernels import target
from videodit_kernels.qknorm import reference, tpu


def norm_rope(
    x: Num[Array, "B T N H"],
    scale: Float[Array, "..."],
    cos: Float[Array, "B T _"],
    sin: Float[Array, "B T _"],
    *,
    eps: float = 1e-6,
    implementation: str | None = None,
) -> Num[Array, "B T N H"]:
    """Compute `x / rms(x) * scale`, then rotate dim i of every head against dim i + H/2 (RoPE, arXiv:2104.09864).

    Args:
        x: queries or keys, bfloat16 or float32.
        scale: float32; [H] where every head is normalised by itself, [N, H] where all heads of a token share a norm.
        cos, sin: of the angles, float32, half a head's width of each.
        implementation: None for the best that serves the device and shapes.

    Returns an array like `x`; its gradient is that of x and scale, and zero for cos and sin.

    Raises:
        ValueError: for an implementation that is unknown or cannot serve the call, and shapes that do not fit.
    """
    width = x.shape[-1]
    if scale.shape not in (x.shape[3:], x.shape[2:]) or {cos.shape, sin.shape} != {(*x.shape[:2], width // 2)}:
        raise ValueError(
            f"x [B, T, N, H] {x.shape} takes scale [H] or [N, H], cos and sin [B, T, H/2]; "
            f"got {scale.shape}, {cos.shape}, {sin.shape}"
        )
    name = target.choose_implementation(implementation)
    if name == "reference":
        return reference.norm_rope(x, scale, cos, sin, eps)
    return tpu.norm_rope(x, scale, cos, sin, eps, name == "tpu_interpret")
