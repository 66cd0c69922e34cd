"""Attention on a TPU: layout, padding, labels and plans around the kernels, and the gradient."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas import tpu as pltpu

from videodit_kernels.attention.blocks import RUN, WHOLE, classify_blocks
from videodit_kernels.attention.masks import Mask, Rule, SequenceOffsets
from videodit_kernels.attention.tpu.backward import MOST_QUERIES, backward
from videodit_kernels.attention.tpu.common import LOG2_E, Blocks, Problem, plan_visits
from videodit_kernels.attention.tpu.forward import LIMIT, forward
from videodit_kernels.attention.tpu.labels import Labels, Table, label_tokens
from videodit_kernels.attention.tpu.tuned import current_chip, lookup_blocks, spare_depth


class _Tables(NamedTuple):
    """Labels of the tokens, and plans: one of the forward kernel, and one of the backward kernel per run of queries."""

    labels: Labels
    forward: Table
    backward: Table


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
    blocks: Blocks | None = None,
    bounded: bool | None = None,
    chip: str | None = None,
    interpret: bool | pltpu.InterpretParams = False,
    residuals: str | None = None,
) -> tuple[Array, Array]:
    """Compute `reference.attention` by the kernels.

    Args:
        blocks: largest block sizes; shorter sequences get smaller ones. None: those of `lookup_blocks`.
        bounded: whether no logit exceeds `LIMIT` powers of two, so that softmax needs no maximum; None: decide in every
            call, from the norms of queries and keys (Cauchy-Schwarz).
        chip: the chip whose block sizes and matrix unit to use; None: the one that is traced for.
        interpret: run in Pallas' interpreter, or in that of the TPU with its memories and copies.
        residuals: the name of the output and the log-sum-exp for policies of `jax.checkpoint`.
    """
    lengths, problem, tables = _prepare(q, k, mask, segments, scale, offsets, blocks, chip, interpret)
    problem = problem._replace(residuals=residuals)
    q, k, v = (_to_heads_first(x, size) for x, size in ((q, lengths[2]), (k, lengths[3]), (v, lengths[3])))
    out, lse = _attention(problem, bounded, q, k, v, tables)
    return out[:, :, : lengths[0]].swapaxes(1, 2), lse[:, :, 0, : lengths[0]].swapaxes(1, 2) / LOG2_E


def gradients(
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    lse: Array,
    delta: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
    blocks: Blocks | None = None,
    chip: str | None = None,
    interpret: bool | pltpu.InterpretParams = False,
) -> tuple[Array, Array, Array]:
    """Compute `reference.gradients` by the kernels; the other arguments are as in `attention`."""
    lengths, problem, tables = _prepare(q, k, mask, segments, scale, offsets, blocks, chip, interpret)
    q, k, v, d_out = (
        _to_heads_first(x, size) for x, size in ((q, lengths[2]), (k, lengths[3]), (v, lengths[3]), (d_out, lengths[2]))
    )
    lse, delta = (_to_heads_first(x[..., None], lengths[2]).swapaxes(2, 3) for x in (lse * LOG2_E, delta))
    grads = _gradients(problem, q, k, v, d_out, lse, delta, tables, jnp.dtype("float32"))
    sizes = lengths[0], lengths[1], lengths[1]
    return tuple(x[:, :, :size].swapaxes(1, 2).astype(jnp.float32) for x, size in zip(grads, sizes, strict=True))


def _prepare(q, k, mask, segments, scale, offsets, blocks, chip, interpret):
    """Return the lengths of queries and keys, unpadded and padded, the kernels' static arguments, and their tables."""
    q_len, kv_len = q.shape[1], k.shape[1]
    chip, dim = chip or current_chip(), q.shape[-1]
    blocks, q_padded, kv_padded = fit_blocks(blocks or lookup_blocks(chip, dim, max(q_len, kv_len)), q_len, kv_len)
    lengths = q_len, kv_len, q_padded, kv_padded
    rule, predicate, labels = label_tokens(
        mask, segments, *lengths, offsets, kv_block=blocks.kv, spare=spare_depth(chip, dim)
    )
    tables = plan_blocks(rule, labels, blocks, q_padded) if rule else None
    return lengths, Problem(predicate, scale, blocks, interpret), tables


def _to_heads_first(x: Array, length: int) -> Array:
    """Transpose [B, T, N, H] to [B, N, length, H], zeros at the end."""
    return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))


def fit_blocks(blocks: Blocks, q_len: int, kv_len: int) -> tuple[Blocks, int, int]:
    """Return block sizes for these lengths, and the padded lengths: as few equal blocks as `blocks` allows."""
    q, (d_queries,) = _divide(q_len, blocks.q, (blocks.d_queries,))
    kv, (keys, d_keys) = _divide(kv_len, blocks.kv, (blocks.keys, blocks.d_keys))
    runs = -(-q_len // MOST_QUERIES)
    return Blocks(q, kv, keys, d_queries, d_keys), _round_up(q_len, q * runs), _round_up(kv_len, kv)


def _divide(length: int, most: int, chunks: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return the size of the fewest equal blocks of at most `most` that hold `length`, and chunks that divide it."""
    size = -(-length // -(-length // most))
    if size < max(chunks):
        chunks = (RUN,) * len(chunks)
    return _round_up(size, max(chunks)), chunks


def _round_up(length: int, unit: int) -> int:
    return -(-length // unit) * unit


def plan_blocks(rule: Rule, labels: Labels, blocks: Blocks, q_padded: int) -> _Tables | None:
    """Return the plans of the kernels; None where they visit all blocks without a mask."""
    kinds = classify_blocks(rule, labels.q, labels.kv, blocks.q, blocks.kv)
    if isinstance(kinds, np.ndarray) and (kinds == WHOLE).all():
        return None
    runs = -(-q_padded // MOST_QUERIES)
    batch, rows, columns = kinds.shape
    by_run = kinds.reshape(batch, runs, rows // runs, columns).transpose(1, 0, 3, 2)
    return _Tables(labels, plan_visits(kinds), plan_visits(by_run))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(
    problem: Problem, bounded: bool | None, q: Array, k: Array, v: Array, tables: _Tables | None
) -> tuple[Array, Array]:
    """Compute the output [B, N, T, H], and the log-sum-exp in powers of two [B, N, 1, T]."""
    labels, visit = (None, None) if tables is None else (tables.labels, tables.forward)
    run = functools.partial(forward, problem=problem)
    if bounded is not None:
        return tuple(run(q, k, v, labels, visit, bounded=bounded))
    longest = [jnp.sqrt(jnp.max(jnp.sum(jnp.square(x.astype(jnp.float32)), -1))) for x in (q, k)]
    return tuple(
        lax.cond(
            abs(problem.scale) * LOG2_E * longest[0] * longest[1] <= LIMIT,
            functools.partial(run, bounded=True),
            functools.partial(run, bounded=False),
            *(q, k, v, labels, visit),
        )
    )


def _attention_fwd(problem: Problem, bounded: bool | None, q: Array, k: Array, v: Array, tables: _Tables | None):
    out, lse = _attention(problem, bounded, q, k, v, tables)
    if problem.residuals:
        out, lse = (checkpoint_name(x, problem.residuals) for x in (out, lse))
    return (out, lse), (q, k, v, out, lse, tables)


def _attention_bwd(problem: Problem, _bounded, residuals, cotangents):
    q, k, v, out, lse, tables = residuals
    d_out, d_lse = cotangents
    d_out = d_out.astype(q.dtype)
    # The logits' gradient is p (dp - delta) + p d_lse, with d_lse that of the natural log-sum-exp.
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), -1)[:, :, None] - d_lse * LOG2_E
    dq, dk, dv = _gradients(problem, q, k, v, d_out, lse, delta, tables, k.dtype)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None


def _gradients(problem: Problem, q, k, v, d_out, lse, delta, tables: _Tables | None, kv_dtype: jnp.dtype):
    """Compute the gradients of q in its type, and of k and v in `kv_dtype` or float32."""
    heads, kv_heads, q_len = q.shape[1], k.shape[1], q.shape[2]
    delta = jnp.where(jnp.isfinite(lse), delta, 0.0)
    lse = jnp.where(jnp.isfinite(lse), lse, 1e30)
    runs = -(-q_len // MOST_QUERIES)
    whole = heads == kv_heads and runs == 1
    run = functools.partial(backward, problem=problem, kv_dtype=kv_dtype if whole else jnp.dtype("float32"))
    labels = None if tables is None else tables.labels
    if runs == 1:
        visit = None if tables is None else tables.backward[0]
        dq, dk, dv = run(q, k, v, d_out, lse, delta, labels, visit)
    else:
        dq, dk, dv = _by_runs(run, runs, q, k, v, d_out, lse, delta, labels, tables)
    if heads != kv_heads:
        dk, dv = (x.reshape(x.shape[0], kv_heads, -1, *x.shape[2:]).sum(2) for x in (dk, dv))
    return dq, dk, dv


def _by_runs(run, runs: int, q, k, v, d_out, lse, delta, labels, tables):
    """Compute gradients one run of queries after the other, those of keys and values summed in float32."""

    def split(x, dim):
        return jnp.moveaxis(x.reshape(*x.shape[:dim], runs, -1, *x.shape[dim + 1 :]), dim, 0)

    def step(sums, part):
        q_, d_out_, lse_, delta_, q_labels, visit = part
        labels_ = None if labels is None else labels._replace(q=q_labels)
        dq, dk, dv = run(q_, k, v, d_out_, lse_, delta_, labels_, visit)
        return (sums[0] + dk, sums[1] + dv), dq

    shape = (q.shape[0], q.shape[1], *k.shape[2:])
    zeros = jnp.zeros(shape, jnp.float32)
    parts = (
        split(q, 2),
        split(d_out, 2),
        split(lse, 3),
        split(delta, 3),
        None if labels is None else split(jnp.asarray(labels.q), 2),
        None if tables is None else tables.backward,
    )
    (dk, dv), dq = lax.scan(step, (zeros, zeros), parts)
    return jnp.moveaxis(dq, 0, 2).reshape(q.shape), dk, dv


_attention.defvjp(_attention_fwd, _attention_bwd)
