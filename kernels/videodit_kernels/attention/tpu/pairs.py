"""Masked scores of a block of queries and keys inside a kernel; pairs that are not allowed score far below all others.

The slots of a `Predicate` are applied by the product that computes the scores. Where the matrix unit is 256 deep and a
head dim is 128, half of it would be idle: so keys get a column for every slot, 1 if their label has its value, and
queries a row of the bias for a key with that value, 0 or `NEVER`. This adds zeros to a score that is allowed.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from videodit_kernels.attention.masks import allows
from videodit_kernels.attention.tpu.labels import LANES, Labels, Predicate
from videodit_kernels.attention.tpu.products import NN, NT, dot

# The largest score of a pair that is not allowed.
UNSET = -1e30
# The bias of a pair that is not allowed, before scores are scaled; float32 holds the sum of those of many spans.
NEVER = -1e36


class Pairs:
    """The mask of a block: operands and scratch of a `pallas_call`, and inside it, after `bind`, masked scores.

    Args:
        predicate, labels: as `label_tokens` returns them.
        like: any of the arrays of tokens [..., H].
        queries, keys: numbers of queries and keys in a block.
    """

    def __init__(self, predicate: Predicate, labels: Labels, like: Array, queries: int, keys: int):
        self.predicate, self.labels, self.dim = predicate, labels, like.shape[-1]
        self.queries, self.keys, self._dtype = queries, keys, like.dtype
        self.count = 3 if predicate.slots else 2  # of operands

    def operands(self) -> list[Array]:
        """Return the labels, and the values of the slots, broadcast over lanes."""
        q, kv, values = self.labels
        if values is None:
            return [jnp.asarray(q), jnp.asarray(kv)]
        return [jnp.asarray(q), jnp.asarray(kv), jnp.broadcast_to(values[:, :, None], (*values.shape, LANES))]

    def specs(self, q_at, kv_at) -> list[pl.BlockSpec]:
        """Return the specs of the operands, from the index maps of queries and keys."""

        def spec(labels, size, at):
            batched = labels.shape[0] > 1
            return pl.BlockSpec((None, labels.shape[1], size), lambda *g: (g[0] if batched else 0, 0, at(*g)[2]))

        specs = [spec(self.labels.q, self.queries, q_at), spec(self.labels.kv, self.keys, kv_at)]
        if self.predicate.slots:
            specs.append(pl.BlockSpec((None, self.labels.values.shape[1], LANES), lambda *g: (kv_at(*g)[2], 0, 0)))
        return specs

    def scratch(self) -> list:
        """Return the scratch: keys' labels broadcast over lanes, as in the scores; keys and queries with slots."""
        rows, shapes = len(self.predicate.kv_rows), []
        if rows:
            shapes.append(pltpu.VMEM((rows, self.keys, LANES), jnp.int32))
        if self.predicate.slots:
            depth = self.dim + self.labels.values.shape[1]
            shapes += [pltpu.VMEM((self.keys, depth), self._dtype), pltpu.VMEM((depth, self.queries), self._dtype)]
        return shapes

    def bind(self, operands, scratch) -> None:
        """Take the refs of the operands and of the scratch, in their order."""
        self.q, self.kv, *values = operands
        scratch = list(scratch)
        if self.predicate.kv_rows:
            self.label_lanes = scratch.pop(0)
        if self.predicate.slots:
            (self.values,), (self.deep_k, self.deep_q) = values, scratch

    def load_keys(self, k) -> None:
        """Read the labels of a new block of keys; before `scores`."""
        for at, row in enumerate(self.predicate.kv_rows):
            lanes = jnp.broadcast_to(self.kv[row : row + 1, :], (LANES, self.keys))
            self.label_lanes[at] = lanes.T
        if not self.predicate.slots:
            return
        one_hot = [
            (self._values(first, count, self.keys) == self.kv[span.label : span.label + 1, :]).astype(jnp.float32)
            for span, first, count in self.predicate.slots
        ]
        self.deep_k[:, : self.dim] = k[...]
        self.deep_k[:, self.dim :] = self._fill_slots(one_hot, self.keys).T.astype(self._dtype)

    def load_queries(self, q_t: Array) -> None:
        """Read a new block of queries, transposed [H, queries]; before `scores`."""
        if self.predicate.slots:
            self.deep_q[: self.dim, :] = q_t

    def update_bias(self) -> None:
        """Write the bias of the slots to the queries after a new block of queries or keys; before `scores`."""
        if not self.predicate.slots:
            return
        bias = [
            jnp.where(
                allows(
                    (span._replace(label=0),),
                    [self.q[span.label : span.label + 1, :]],
                    [self._values(first, count, self.queries)],
                ),
                0.0,
                NEVER,
            )
            for span, first, count in self.predicate.slots
        ]
        self.deep_q[self.dim :, :] = self._fill_slots(bias, self.queries).astype(self._dtype)

    def scores(self, q, k, queries, keys, scale: float) -> Array:
        """Compute `scale` times the product of some queries and keys of the block, [keys, queries].

        Scores of pairs that are not allowed are at most `UNSET`.
        """
        if self.predicate.slots:
            scores = dot(self.deep_k[keys, :], self.deep_q[:, queries], NN) * scale
        else:
            scores = dot(k[keys, :], q[queries, :], NT) * scale
        if not self.predicate.kv_rows:
            return scores
        q_rows = [self.q[row : row + 1, queries] for row in range(self.q.shape[0])]
        kv_rows = {
            row: jnp.concatenate([self.label_lanes[at, keys, :]] * (queries.size // LANES), axis=1)
            for at, row in enumerate(self.predicate.kv_rows)
        }
        return jnp.where(self.predicate.allows(q_rows, kv_rows), scores, UNSET)

    def _values(self, first: int, count: int, tokens: int) -> Array:
        """Return the values of slots [count, tokens], the same for all tokens."""
        return jnp.concatenate([self.values[first : first + count, :]] * (tokens // LANES), axis=1)

    def _fill_slots(self, rows: list[Array], tokens: int) -> Array:
        """Concatenate the rows of the slots in use, and zeros for the others."""
        unused = self.values.shape[0] - sum(x.shape[0] for x in rows)
        return jnp.concatenate([*rows, *[jnp.zeros((unused, tokens), jnp.float32)] * (unused > 0)], axis=0)
