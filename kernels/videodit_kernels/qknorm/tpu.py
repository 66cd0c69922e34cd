"""Norm and rotation on a TPU: queries or keys are read once and written once, in the layout of the attention kernels.

XLA compiles the formulas to several passes over memory, with float32 between them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

# Tokens of a grid step where all heads together have 1024 dims.
_TOKENS = 256


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def norm_rope(x: Array, scale: Array, cos: Array, sin: Array, eps: float, interpret: bool) -> Array:
    """Compute `api.norm_rope`."""
    return _forward(x, scale, cos, sin, eps=eps, interpret=interpret)


def _fwd(x, scale, cos, sin, eps, interpret):
    return _forward(x, scale, cos, sin, eps=eps, interpret=interpret), (x, scale, cos, sin)


def _bwd(eps, interpret, residuals, dy):
    x, scale, cos, sin = residuals
    dx, sums = _backward(x, scale, cos, sin, dy, eps=eps, interpret=interpret)
    d_scale = sums.sum((0, 2)).reshape(scale.shape).astype(scale.dtype)
    return dx, d_scale, jnp.zeros_like(cos), jnp.zeros_like(sin)


norm_rope.defvjp(_fwd, _bwd)


class _Norm:
    """The norm of a block of tokens x [N, tokens, H], over each head or over all: `inverse` is 1 / rms."""

    def __init__(self, x, scale, eps: float):
        self.x, self.scale, self.eps = x, scale, eps
        self.all_heads = scale.shape[0] > 1
        self.inverse = self._inverse(self.total(lambda n: jnp.square(self.head(n)))) if self.all_heads else None

    def head(self, n) -> Array:
        return self.x[n].astype(jnp.float32)

    def scale_of(self, n) -> Array:
        return self.scale[n if self.all_heads else 0]

    def of(self, n) -> tuple[Array, Array]:
        """Return a head of `x`, normalised but not scaled, and `inverse`."""
        head = self.head(n)
        inverse = self.inverse if self.all_heads else self._inverse(jnp.sum(jnp.square(head), -1, keepdims=True))
        return head * inverse, inverse

    def mean(self, total: Array) -> Array:
        """Divide a sum of `total` by the number of dims that it has summed over."""
        return total / (self.x.shape[2] * (self.x.shape[0] if self.all_heads else 1))

    def total(self, fn) -> Array:
        """Sum `fn(head)` [tokens, H] over all heads and their dims, [tokens, 1]."""
        zeros = jnp.zeros((self.x.shape[1], 1), jnp.float32)
        return lax.fori_loop(0, self.x.shape[0], lambda n, sums: sums + jnp.sum(fn(n), -1, keepdims=True), zeros)

    def _inverse(self, total: Array) -> Array:
        return lax.rsqrt(self.mean(total) + self.eps)


def _tables(cos, sin) -> tuple[Array, Array]:
    """Return the factors of a head, and those of the head with its halves exchanged."""
    c, s = cos[...], sin[...]
    return jnp.concatenate([c, c], -1), jnp.concatenate([-s, s], -1)


def _exchange(x: Array) -> Array:
    """Exchange the halves of every row."""
    half = x.shape[-1] // 2
    return jnp.concatenate([x[:, half:], x[:, :half]], -1)


def _forward(x, scale, cos, sin, *, eps: float, interpret: bool):
    def kernel(x, scale, cos, sin, out):
        norm, (same, other) = _Norm(x, scale, eps), _tables(cos, sin)

        def head(n, _):
            z = norm.of(n)[0] * norm.scale_of(n)
            out[n] = (z * same + _exchange(z) * other).astype(out.dtype)

        lax.fori_loop(0, x.shape[0], head, None)

    return _call(kernel, [x], scale, cos, sin, False, "videodit_qknorm_fwd", interpret)[0]


def _backward(x, scale, cos, sin, dy, *, eps: float, interpret: bool):
    """Compute the gradient of x, and that of scale, summed over tokens to eight rows."""
    length = x.shape[1]

    def kernel(x, dy, scale, cos, sin, dx, sums):
        norm, (same, other) = _Norm(x, scale, eps), _tables(cos, sin)
        token = pl.program_id(1) * x.shape[1] + lax.broadcasted_iota(jnp.int32, x.shape[1:], 0)

        def back(n):
            """Return the gradient of a head before its rotation."""
            d = dy[n].astype(jnp.float32)
            return d * same + _exchange(d * other)

        @pl.when(pl.program_id(1) == 0)
        def _():
            sums[...] = jnp.zeros(sums.shape, jnp.float32)

        if norm.all_heads:
            along = norm.mean(norm.total(lambda n: back(n) * norm.scale_of(n) * norm.of(n)[0]))

        def head(n, _):
            (normal, inverse), dz = norm.of(n), back(n)
            d = dz * norm.scale_of(n)
            mean = along if norm.all_heads else norm.mean(jnp.sum(d * normal, -1, keepdims=True))
            dx[n] = (inverse * (d - normal * mean)).astype(dx.dtype)
            part = dz * normal
            part = jnp.where(token < length, part, 0.0) if length % x.shape[1] else part
            sums[n if norm.all_heads else 0] += part.reshape(-1, 8, part.shape[1]).sum(0)

        lax.fori_loop(0, x.shape[0], head, None)

    return _call(kernel, [x, dy], scale, cos, sin, True, "videodit_qknorm_bwd", interpret)


def _call(kernel, arrays: list[Array], scale: Array, cos: Array, sin: Array, sums: bool, name: str, interpret: bool):
    """Run a kernel over blocks of tokens: arrays and an output [B, T, N, H], and sums like `scale` [B, 1 or N, 8, H].

    The last block may reach beyond the tokens: values read there are undefined, and values written there are dropped.
    """
    batch, length, heads, dim = arrays[0].shape
    size = max(16, min(_TOKENS * 1024 // (heads * dim), length) // 16 * 16)
    scale = scale.reshape(-1, 1, dim)
    tokens = pl.BlockSpec((None, heads, size, dim), lambda b, i: (b, 0, i, 0))
    angles = pl.BlockSpec((None, size, dim // 2), lambda b, i: (b, i, 0))
    whole = pl.BlockSpec(scale.shape, lambda b, i: (0, 0, 0))
    outputs = pl.pallas_call(
        kernel,
        grid=(batch, -(-length // size)),
        in_specs=[tokens] * len(arrays) + [whole, angles, angles],
        out_specs=[tokens] + [pl.BlockSpec((None, len(scale), 8, dim), lambda b, i: (b, 0, 0, 0))] * sums,
        out_shape=[jax.ShapeDtypeStruct((batch, heads, length, dim), arrays[0].dtype)]
        + [jax.ShapeDtypeStruct((batch, len(scale), 8, dim), jnp.float32)] * sums,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary" if sums else "parallel")),
        interpret=interpret,
        name=name,
    )(*(x.swapaxes(1, 2) for x in arrays), scale, cos, sin)
    return outputs[0].swapaxes(1, 2), *outputs[1:]
