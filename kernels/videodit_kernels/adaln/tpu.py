"""adaLN on a TPU: every array is read once and written once, forward and backward."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

# Tokens of a grid step at a width of 1024.
_ROWS = 512
_LANES = 128
# Above the compiler's default: the sums and float32 values of wide models need it.
_VMEM_BYTES = 32 * 2**20


def find_obstacle(x: Array, y: Array | None, scale: Array, shift: Array, gate: Array | None) -> str | None:
    """Return why the kernel cannot serve a call; None if it can."""
    if any(m is not None and m.shape[1] != 1 for m in (scale, shift, gate)):
        return "has one modulation a clip, [B, 1, D], not one a token"
    if y is not None and y.dtype != x.dtype:
        return f"takes x and y of one type, got {x.dtype} and {y.dtype}"
    if x.shape[-1] % _LANES:
        return f"takes widths that are multiples of {_LANES}, got {x.shape[-1]}"
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def adaln(
    x: Array, y: Array | None, gate: Array, scale: Array, shift: Array, eps: float, interpret: bool
) -> tuple[Array, Array]:
    """Compute `api.adaln` with modulation [B, 1, D]; without `y`, `gate` is not read."""
    return _forward(x, y, gate, scale, shift, eps=eps, interpret=interpret)


def _adaln_fwd(x, y, gate, scale, shift, eps, interpret):
    r, out = _forward(x, y, gate, scale, shift, eps=eps, interpret=interpret)
    return (r, out), (r, y, gate, scale)


def _adaln_bwd(eps, interpret, residuals, cotangents):
    r, y, gate, scale = residuals
    dx, dy, sums = _backward(r, y, gate, scale, *cotangents, eps=eps, interpret=interpret)
    d_scale, d_shift, d_gate = jnp.split(sums.sum(1, keepdims=True), 3, axis=-1)
    return dx, dy, d_gate.astype(gate.dtype), d_scale.astype(scale.dtype), d_shift.astype(scale.dtype)


adaln.defvjp(_adaln_fwd, _adaln_bwd)


def _statistics(r: Array, eps: float) -> tuple[Array, Array]:
    """Return the normalised tokens, and the reciprocal of their standard deviation."""
    centered = r - jnp.mean(r, axis=-1, keepdims=True)
    inverse = lax.rsqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True) + eps)
    return centered * inverse, inverse


def _call(
    kernel, x: Array, arrays: list[Array], modulations: list[Array], outs: int, sums: int, name: str, interpret: bool
):
    """Run a kernel over blocks of tokens.

    Arrays and outputs are like `x`, modulations [B, 1, D], sums [B, 8, sums D] in float32. The last block may reach
    beyond the tokens: values read there are undefined, and values written there are dropped.
    """
    batch, length, width = x.shape
    size = _block(length, width)
    tokens = pl.BlockSpec((None, size, width), lambda b, i: (b, i, 0))
    row = pl.BlockSpec((None, 1, width), lambda b, i: (b, 0, 0))
    return pl.pallas_call(
        kernel,
        grid=(batch, -(-length // size)),
        in_specs=[tokens] * len(arrays) + [row] * len(modulations),
        out_specs=[tokens] * outs + [pl.BlockSpec((None, 8, sums * width), lambda b, i: (b, 0, 0))] * bool(sums),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * outs
        + [jax.ShapeDtypeStruct((batch, 8, sums * width), jnp.float32)] * bool(sums),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=_VMEM_BYTES
        ),
        interpret=interpret,
        name=name,
    )(*arrays, *modulations)


def _block(length: int, width: int) -> int:
    return max(16, min(_ROWS * 1024 // width, length) // 16 * 16)


def _forward(x, y, gate, scale, shift, *, eps: float, interpret: bool):
    branch = y is not None

    def kernel(*refs):
        if branch:
            x, y, gate, scale, shift, r_out, out = refs
            r = (x[...].astype(jnp.float32) + gate[...] * y[...].astype(jnp.float32)).astype(r_out.dtype)
            r_out[...] = r
        else:
            x, scale, shift, out = refs
            r = x[...]
        normal, _ = _statistics(r.astype(jnp.float32), eps)
        out[...] = (normal * (1 + scale[...]) + shift[...]).astype(out.dtype)

    arrays, modulations = ([x, y], [gate, scale, shift]) if branch else ([x], [scale, shift])
    outputs = _call(kernel, x, arrays, modulations, 1 + branch, 0, "videodit_adaln_fwd", interpret)
    return tuple(outputs) if branch else (x, outputs[0])


def _backward(r, y, gate, scale, d_r, d_out, *, eps: float, interpret: bool):
    """Compute the gradients of x, y (None without it), and of scale, shift and gate, summed over tokens to 8 rows."""
    branch, length = y is not None, r.shape[1]

    def kernel(*refs):
        if branch:
            r, d_r, d_out, y, gate, scale, dx, dy, sums = refs
        else:
            r, d_r, d_out, scale, dx, sums = refs

        @pl.when(pl.program_id(1) == 0)
        def _():
            sums[...] = jnp.zeros(sums.shape, jnp.float32)

        normal, inverse = _statistics(r[...].astype(jnp.float32), eps)
        d_out = d_out[...].astype(jnp.float32)
        g = d_out * (1 + scale[...])
        means = jnp.mean(g, axis=-1, keepdims=True), jnp.mean(g * normal, axis=-1, keepdims=True)
        d = d_r[...].astype(jnp.float32) + inverse * (g - means[0] - normal * means[1])
        dx[...] = d.astype(dx.dtype)
        parts = [d_out * normal, d_out]
        if branch:
            dy[...] = (gate[...] * d).astype(dy.dtype)
            parts.append(d * y[...].astype(jnp.float32))
        token = pl.program_id(1) * r.shape[0] + lax.broadcasted_iota(jnp.int32, r.shape, 0)
        for at, part in enumerate(parts):
            part = jnp.where(token < length, part, 0.0) if length % r.shape[0] else part
            columns = pl.ds(at * r.shape[1], r.shape[1])
            sums[:, columns] += part.reshape(-1, 8, part.shape[1]).sum(0)

    arrays, modulations = ([r, d_r, d_out, y], [gate, scale]) if branch else ([r, d_r, d_out], [scale])
    outputs = _call(kernel, r, arrays, modulations, 1 + branch, 3, "videodit_adaln_bwd", interpret)
    return outputs if branch else (outputs[0], None, outputs[1])
