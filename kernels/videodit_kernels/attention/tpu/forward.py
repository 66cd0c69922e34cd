"""The forward kernel, with the scores transposed: `S' = K Q'`, `O' = V' P'`.

Keys lie along sublanes and queries along lanes, so that maxima, sums and the log-sum-exp are rows, cheap to compute and
to broadcast; and the probabilities are the stationary operand of the second product, which then fills a matrix unit of
256 where a head dim does not.

Softmax is the same relative to any reference with which nothing overflows and not everything underflows, so the running
maximum and its rescaling are not needed at every step:

    bounded   the caller guarantees that no logit leaves [-LIMIT, LIMIT]: the reference is 0.
    otherwise the reference is an earlier logit of the row. Each block's logits are checked against it; where one
              exceeds it by more than LIMIT, the block is computed again relative to its own maximum.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from videodit_kernels.attention.tpu.common import (
    LOG2_E,
    Problem,
    Walk,
    compiler_params,
)
from videodit_kernels.attention.tpu.labels import Labels, Table
from videodit_kernels.attention.tpu.pairs import UNSET, Pairs
from videodit_kernels.attention.tpu.products import NT, TN, dot

# In powers of two. 2**60 times a million keys is far below 2**127, where float32 and bfloat16 end, and 2**-60 far above
# 2**-126.
LIMIT = 60.0


def forward(
    q: Array, k: Array, v: Array, labels: Labels | None, plan: Table | None, *, problem: Problem, bounded: bool
) -> tuple[Array, Array]:
    """Compute attention [B, N, T, H] in the type of `q`, and its log-sum-exp in powers of two, float32 [B, N, 1, T].

    Args:
        q: [B, N, T, H]; k, v: [B, M, S, H], M a divisor of N; T and S multiples of the blocks.
        labels: of the tokens, eight rows each, [B or 1, 8, T] and [B or 1, 8, S]; None where there is no rule.
        plan: `plan_visits` of the blocks of queries, [B or 1, T / block, visits]; None to visit all, with
            the mask if there are labels.
        bounded: whether no `scale q k log2(e)` exceeds `LIMIT` in size.
    """
    (batch, heads, q_len, dim), kv_len, blocks = q.shape, k.shape[2], problem.blocks
    group = heads // k.shape[1]
    rows = q_len // blocks.q
    pairs = None if labels is None else Pairs(problem.predicate, labels, q, blocks.q, blocks.kv)
    walk = Walk(plan, pairs, kv_len // blocks.kv)

    def q_at(b, n, i, j, *_):
        return b, n, i, 0

    def kv_at(b, n, i, j, *plan_ref):
        return b, n // group, walk.column(b, i, j, *plan_ref), 0

    def row_at(b, n, i, j, *_):
        return b, n, 0, i

    def kernel(*refs):
        plan_ref, refs = walk.split(refs)
        tile = _Tile(*refs, pairs, problem, bounded)
        b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)
        pl.when(j == 0)(tile.start)
        walk.visit(b, i, j, *plan_ref, visit=functools.partial(tile.visit, j == 0))
        pl.when(j == walk.steps - 1)(tile.finish)

    q_spec = pl.BlockSpec((None, None, blocks.q, dim), q_at)
    kv_spec = pl.BlockSpec((None, None, blocks.kv, dim), kv_at)
    lazy = not bounded
    call = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=int(plan is not None),
            grid=(batch, heads, rows, walk.steps),
            in_specs=[*walk.specs(q_at, kv_at), q_spec, kv_spec, kv_spec],
            out_specs=[q_spec, pl.BlockSpec((None, None, 1, blocks.q), row_at)],
            scratch_shapes=[
                pltpu.VMEM((1 + lazy, dim, blocks.q), jnp.float32),
                pltpu.VMEM((1 + lazy, 8, blocks.q), jnp.float32),
                pltpu.VMEM((1, blocks.q), jnp.float32),
                pltpu.VMEM((8, blocks.q), jnp.float32),
                pltpu.SMEM((1,), jnp.int32),
                *walk.scratch(),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((batch, heads, 1, q_len), jnp.float32)],
        compiler_params=compiler_params(("parallel", "parallel", "parallel", "arbitrary")),
        interpret=problem.interpret,
        name="videodit_attention_fwd",
    )
    return call(*walk.operands(), q, k, v)


class _Tile:
    """One grid step: its operands, outputs and scratch. Rows are [1, queries], sums [8, queries], folded over sublanes.

    `acc` (O', not yet divided) and `sums` hold two versions unless bounded: a block reads one and writes the other, so
    that it can be computed again.
    """

    def __init__(self, q, k, v, out, lse, acc, sums, reference, top, slot, pairs, problem, bounded):
        self.q, self.k, self.v, self.out, self.lse = q, k, v, out, lse
        self.acc, self.sums, self.reference, self.top, self.slot = acc, sums, reference, top, slot
        self.pairs, self.problem, self.bounded = pairs, problem, bounded

    def start(self):
        self.slot[0] = 0
        self.acc[0] = jnp.zeros(self.acc.shape[1:], jnp.float32)
        self.sums[0] = jnp.zeros(self.sums.shape[1:], jnp.float32)
        if not self.bounded:
            self.reference[...] = jnp.full(self.reference.shape, UNSET, jnp.float32)
        if self.pairs is not None:
            self.pairs.load_queries(self.q[...].T)

    def visit(self, first, masked: bool):
        """Add a block of keys."""
        if masked:
            self.pairs.load_keys(self.k)
            self.pairs.update_bias()
        if self.bounded:
            self._sweep(masked, 0, 0, None, rolled=False)
            return
        old = self.slot[0]
        new = 1 - old
        self.slot[0] = new

        @pl.when(first)
        def _():
            few = min(128, self.k.shape[0])
            self.reference[...] = jnp.maximum(self._scores(pl.ds(0, few), masked).max(0, keepdims=True), UNSET)

        self.top[...] = jnp.full(self.top.shape, UNSET, jnp.float32)
        self._sweep(masked, old, new, None, rolled=False)
        top = self.top[...].max(0, keepdims=True)

        @pl.when(jnp.max(top - self.reference[...]) > LIMIT)
        def _():
            before = self.reference[...]
            self.reference[...] = jnp.maximum(before, top)
            self._sweep(masked, old, new, jnp.exp2(before - self.reference[...]), rolled=True)

    def finish(self):
        at = 0 if self.bounded else self.slot[0]
        total = self.sums[at].sum(0, keepdims=True)
        some = total > 0
        safe = jnp.where(some, total, 1.0)
        self.out[...] = (self.acc[at] / safe).T.astype(self.out.dtype)
        reference = 0.0 if self.bounded else self.reference[...]
        self.lse[...] = jnp.where(some, jnp.log2(safe) + reference, -jnp.inf)

    def _scores(self, keys, masked: bool):
        """Compute logits in powers of two [keys, queries], `UNSET` or less where they are not allowed."""
        scale = self.problem.scale * LOG2_E
        if masked:
            return self.pairs.scores(self.q, self.k, pl.ds(0, self.q.shape[0]), keys, scale)
        return dot(self.k[keys, :], self.q[...], NT) * scale

    def _sweep(self, masked: bool, old, new, rescale, rolled: bool):
        """Write version `new` of the sums: `old`, times the row `rescale` if there is one, and this block's part."""
        step = self.problem.blocks.keys
        count = self.k.shape[0] // step

        if not self.bounded:
            # Relative to UNSET, scores that are not allowed would count.
            reference = jnp.where(self.reference[...] > UNSET, self.reference[...], 0.0)

        def chunk(x, sums, acc):
            keys = pl.ds(x * step, step)
            scores = self._scores(keys, masked)
            if not self.bounded:
                self.top[...] = jnp.maximum(self.top[...], _fold(scores, jnp.max))
                scores -= reference
            p = jnp.exp2(scores)
            self.sums[new] = sums + _fold(p, jnp.sum)
            self.acc[new] = acc + dot(self.v[keys, :], p.astype(self.v.dtype), TN)

        scaled = [x if rescale is None else x * rescale for x in (self.sums[old], self.acc[old])]
        chunk(0, *scaled)
        if rolled:
            lax.fori_loop(1, count, lambda x, _: chunk(x, self.sums[new], self.acc[new]), None)
        else:
            for x in range(1, count):
                chunk(x, self.sums[new], self.acc[new])


def _fold(x: Array, reduce) -> Array:
    """Reduce [keys, queries] to [8, queries], without crossing sublanes."""
    return reduce(x.reshape(-1, 8, x.shape[-1]), axis=0)
