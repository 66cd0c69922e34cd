"""Normalisation, computed in float32 whatever the type of its input."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, Float
from videodit_kernels.adaln import adaln

from videodit.nn.param import gather_param, param
from videodit.parallel.rules import map_per_device
from videodit.shapes import Tokens


def rms_norm(
    x: Float[Array, "*shape C"], scale: Float[Array, "C"] | None = None, eps: float = 1e-6
) -> Float[Array, "*shape C"]:
    """Compute `x / rms(x)` over the last dimension, times `scale`; keeps the type of `x` (Zhang and Sennrich 2019)."""
    x32 = x.astype(jnp.float32)
    y = x32 * lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (y if scale is None else y * scale).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*shape C"],
    scale: Float[Array, "*#shape C"] | None = None,
    bias: Float[Array, "*#shape C"] | None = None,
    eps: float = 1e-6,
) -> Float[Array, "*shape C"]:
    """Compute `scale * (x - mean) / std + bias` over the last dimension; keeps the type of `x` (Ba et al. 2016).

    `scale` and `bias` broadcast against `x`: one vector, or one a sample or a token as in adaptive normalisation.
    """
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    y = centred * lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)
    y = y if scale is None else y * scale
    y = y if bias is None else y + bias
    return y.astype(x.dtype)


def adaptive_norm(
    x_BLD: Tokens,
    scale_BlD: Float[Array, "B #L D"],
    shift_BlD: Float[Array, "B #L D"],
    y_BLD: Tokens | None = None,
    *,
    eps: float = 1e-6,
) -> tuple[Tokens, Tokens]:
    """Compute `x + y`, and `layer_norm` of it times `1 + scale` plus `shift`, by a kernel on every device's tokens."""

    def norm(x, scale, shift, y):
        return adaln(x, scale, shift, y=y, eps=eps)

    tokens = ("batch", "stream", None)
    modulation = tokens if scale_BlD.shape[1] > 1 else ("batch", None, None)
    return map_per_device(norm, (tokens, modulation, modulation, tokens), tokens)(x_BLD, scale_BlD, shift_BlD, y_BLD)


class RMSNorm(nnx.Module):
    """`rms_norm` with a learned scale over the last dimension, which has the logical name `dim`."""

    def __init__(self, size: int, *, dim: str | None, eps: float = 1e-6, rngs: nnx.Rngs):
        self.eps = eps
        self.scale = param(rngs.params(), initializers.ones, (size,), (dim,))

    def __call__(self, x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
        return rms_norm(x, gather_param(self.scale), self.eps)


class LayerNorm(nnx.Module):
    """`layer_norm` with a learned scale and bias over the last dimension, which has the logical name `dim`."""

    def __init__(self, size: int, *, dim: str | None, eps: float = 1e-6, rngs: nnx.Rngs):
        self.eps = eps
        self.scale = param(rngs.params(), initializers.ones, (size,), (dim,))
        self.bias = param(rngs.params(), initializers.zeros, (size,), (dim,))

    def __call__(self, x: Float[Array, "*shape C"]) -> Float[Array, "*shape C"]:
        return layer_norm(x, gather_param(self.scale), gather_param(self.bias), self.eps)
