"""The backward kernel: all three gradients in one pass, five products a block, everything transposed as in the forward.

    P' = exp2(K Q' - lse),  dS' = P' (V dO' - delta),  dV' += dO' P,  dK' += Q' dS,  dQ' += K' dS'

A block of keys stays in VMEM while the queries pass. dQ', to which every block adds, is kept whole in VMEM, so that no
partial dQ is written and summed; the caller cuts sequences longer than `MOST_QUERIES`. Neighbouring chunks are
interleaved: the scores of one are computed while the products that read the scores of the previous one run.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from videodit_kernels.attention.tpu.common import (
    LOG2_E,
    Problem,
    Walk,
    compiler_params,
)
from videodit_kernels.attention.tpu.labels import Labels, Table
from videodit_kernels.attention.tpu.pairs import Pairs
from videodit_kernels.attention.tpu.products import NT, TN, dot

# dQ' in float32, and the result twice, take 1 KiB a query at a head dim of 128.
MOST_QUERIES = 32768


def backward(
    q: Array,
    k: Array,
    v: Array,
    d_out: Array,
    lse: Array,
    delta: Array,
    labels: Labels | None,
    plan: Table | None,
    *,
    problem: Problem,
    kv_dtype: jnp.dtype,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of q [B, N, T, H] in its type, and of k and v per query head, [B, N, S, H] in `kv_dtype`.

    Args:
        q, k, v, labels: as in `forward`; T at most `MOST_QUERIES`.
        d_out: gradient of the output, [B, N, T, H].
        lse: as `forward` returns it, but so large that all weights vanish where a query has no key.
        delta: `sum(out * d_out)` less the gradient of the natural log-sum-exp, float32 [B, N, 1, T].
        plan: `plan_visits` of the blocks of keys, [B or 1, S / block, visits]; None to visit all, with
            the mask if there are labels.
    """
    (batch, heads, q_len, dim), kv_len, blocks = q.shape, k.shape[2], problem.blocks
    assert q_len <= MOST_QUERIES, q_len
    group = heads // k.shape[1]
    rows = kv_len // blocks.kv
    pairs = None if labels is None else Pairs(problem.predicate, labels, q, blocks.q, blocks.kv)
    walk = Walk(plan, pairs, q_len // blocks.q)

    def q_at(b, n, j, i, *plan_ref):
        return b, n, walk.column(b, j, i, *plan_ref), 0

    def kv_at(b, n, j, i, *_):
        return b, n // group, j, 0

    def row_at(b, n, j, i, *plan_ref):
        return b, n, 0, walk.column(b, j, i, *plan_ref)

    def kernel(*refs):
        plan_ref, refs = walk.split(refs)
        b, j, i = pl.program_id(0), pl.program_id(2), pl.program_id(3)
        tile = _Tile(*refs, pairs, problem, walk.column(b, j, i, *plan_ref))
        pl.when((j == 0) & (i == 0))(tile.start_head)
        pl.when(i == 0)(tile.start_keys)
        walk.visit(b, j, i, *plan_ref, visit=tile.visit)
        pl.when(i == walk.steps - 1)(tile.finish_keys)
        pl.when((j == rows - 1) & (i == walk.steps - 1))(tile.finish_head)

    q_spec = pl.BlockSpec((None, None, blocks.q, dim), q_at)
    kv_spec = pl.BlockSpec((None, None, blocks.kv, dim), kv_at)
    row_spec = pl.BlockSpec((None, None, 1, blocks.q), row_at)
    d_kv_spec = pl.BlockSpec((None, None, blocks.kv, dim), lambda b, n, j, i, *_: (b, n, j, 0))
    d_kv = jax.ShapeDtypeStruct((batch, heads, kv_len, dim), kv_dtype)
    call = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=int(plan is not None),
            grid=(batch, heads, rows, walk.steps),
            in_specs=[*walk.specs(q_at, kv_at), q_spec, kv_spec, kv_spec, q_spec, row_spec, row_spec],
            out_specs=[
                pl.BlockSpec((None, None, q_len, dim), lambda b, n, j, i, *_: (b, n, 0, 0)),
                d_kv_spec,
                d_kv_spec,
            ],
            scratch_shapes=[
                pltpu.VMEM((q_len // blocks.q, dim, blocks.q), jnp.float32),
                *[pltpu.VMEM((dim, blocks.kv), jnp.float32)] * 2,
                *[pltpu.VMEM((dim, blocks.q), q.dtype)] * 2,
                *[pltpu.VMEM((2, blocks.d_keys, max(_chunk(problem, m) for m in (False, True))), q.dtype)] * 2,
                *walk.scratch(),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), d_kv, d_kv],
        compiler_params=compiler_params(("parallel", "parallel", "arbitrary", "arbitrary")),
        interpret=problem.interpret,
        name="videodit_attention_bwd",
    )
    return call(*walk.operands(), q, k, v, d_out, lse, delta)


class _Tile:
    """One grid step. Sums are transposed, [H, tokens]; `p` and `ds` hold two chunks, [keys, queries]."""

    def __init__(
        self, q, k, v, d_out, lse, delta, dq, dk, dv, dq_sum, dk_sum, dv_sum, q_t, d_out_t, p, ds,
        pairs, problem, block,
    ):  # fmt: skip
        self.q, self.k, self.v, self.d_out, self.lse, self.delta = q, k, v, d_out, lse, delta
        self.dq, self.dk, self.dv = dq, dk, dv
        self.dq_sum, self.dk_sum, self.dv_sum = dq_sum, dk_sum, dv_sum
        self.q_t, self.d_out_t, self.p, self.ds = q_t, d_out_t, p, ds
        self.pairs, self.problem, self.block = pairs, problem, block

    def start_head(self):
        for at in range(self.dq_sum.shape[0]):
            self.dq_sum[at] = jnp.zeros(self.dq_sum.shape[1:], jnp.float32)

    def start_keys(self):
        self.dk_sum[...] = jnp.zeros(self.dk_sum.shape, jnp.float32)
        self.dv_sum[...] = jnp.zeros(self.dv_sum.shape, jnp.float32)
        if self.pairs is not None:
            self.pairs.load_keys(self.k)

    def finish_keys(self):
        self.dk[...] = (self.problem.scale * self.dk_sum[...]).T.astype(self.dk.dtype)
        self.dv[...] = self.dv_sum[...].T.astype(self.dv.dtype)

    def finish_head(self):
        size = self.dq_sum.shape[2]
        for at in range(self.dq_sum.shape[0]):
            queries = pl.ds(at * size, size)
            self.dq[queries, :] = (self.problem.scale * self.dq_sum[at]).T.astype(self.dq.dtype)

    def visit(self, masked: bool):
        """Add a block of queries to the sums."""
        self.q_t[...] = self.q[...].T
        self.d_out_t[...] = self.d_out[...].T
        if masked:
            self.pairs.load_queries(self.q_t[...])
            self.pairs.update_bias()
        blocks, width = self.problem.blocks, _chunk(self.problem, masked)
        across = blocks.q // width
        chunks = [
            (pl.ds(x % across * width, width), pl.ds(x // across * blocks.d_keys, blocks.d_keys))
            for x in range(across * (blocks.kv // blocks.d_keys))
        ]
        self._scores(*chunks[0], 0, masked)
        for x, chunk in enumerate(chunks):
            if x + 1 < len(chunks):
                self._scores(*chunks[x + 1], (x + 1) % 2, masked)
            self._products(*chunk, x % 2)

    def _scores(self, queries, keys, slot: int, masked: bool):
        scale = self.problem.scale * LOG2_E
        if masked:
            scores = self.pairs.scores(self.q, self.k, queries, keys, scale)
        else:
            scores = dot(self.k[keys, :], self.q[queries, :], NT) * scale
        p = jnp.exp2(scores - self.lse[:, queries])
        dp = dot(self.v[keys, :], self.d_out[queries, :], NT)
        self.ds[slot, :, : queries.size] = (p * (dp - self.delta[:, queries])).astype(self.ds.dtype)
        self.p[slot, :, : queries.size] = p.astype(self.p.dtype)

    def _products(self, queries, keys, slot: int):
        p, ds = (x[slot, :, : queries.size] for x in (self.p, self.ds))
        self.dv_sum[:, keys] += dot(self.d_out_t[:, queries], p, NT)
        self.dk_sum[:, keys] += dot(self.q_t[:, queries], ds, NT)
        self.dq_sum[self.block, :, queries] += dot(self.k[keys, :], ds, TN)


def _chunk(problem: Problem, masked: bool) -> int:
    """Return the queries of a chunk: twice as many where scores come with slots and they fit, faster in simulation."""
    size = problem.blocks.d_queries
    return 2 * size if masked and problem.predicate.slots and problem.blocks.q % (2 * size) == 0 else size
