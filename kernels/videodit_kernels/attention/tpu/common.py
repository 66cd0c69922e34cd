"""What the forward and the backward kernel share: products, block sizes, and the blocks that a grid walks over."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from videodit_kernels.attention.blocks import EMPTY, PARTIAL, WHOLE
from videodit_kernels.attention.tpu.labels import LANES, Judge, Labels, Pairs, Table

LOG2_E = 1.4426950408889634

# Contracted dims of a matrix product: a b', a' b.
NT = (((1,), (1,)), ((), ()))
TN = (((0,), (0,)), ((), ()))


def dot(a: Array, b: Array, dims) -> Array:
    """A product summed in float32; float32 operands are not rounded to bfloat16."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, dims, precision=precision, preferred_element_type=jnp.float32)


class Blocks(NamedTuple):
    """Tokens that a grid step holds, and tokens of them that one product takes at once."""

    q: int = 2048
    kv: int = 2048
    keys: int = 512  # in the forward kernel, where a product takes all queries of the block
    d_queries: int = 256  # in the backward kernel
    d_keys: int = 256


class Problem(NamedTuple):
    """What a kernel is compiled for."""

    judge: Judge  # empty: everyone attends to everyone
    scale: float
    blocks: Blocks
    interpret: bool | pltpu.InterpretParams


def visits(kinds):
    """What to visit in every row of a table of `blocks.classify`, int32 of its shape or narrower.

    An entry is `4 * column + kind`, those to visit first; the others repeat the last one with the kind EMPTY, so that
    nothing more is fetched.
    """
    xp = np if isinstance(kinds, np.ndarray) else jnp
    # A stable sort puts the blocks to visit first, in order.
    order = xp.argsort(kinds == EMPTY, axis=-1, stable=True)
    kinds = xp.take_along_axis(kinds, order, axis=-1)
    count = (kinds != EMPTY).sum(-1, keepdims=True)
    last = xp.take_along_axis(order, xp.maximum(count - 1, 0), axis=-1)
    plan = 4 * xp.where(xp.arange(order.shape[-1]) < count, order, last) + kinds
    if xp is np:
        plan = plan[..., : max(1, int(count.max()))]
    return plan.astype(np.int32)


class Walk:
    """How a grid (batch, head, row, step) goes over blocks: over all columns of a row, or over those of a plan.

    Where there are a plan and labels, they are the first operands and their scratch is the last; so `split` finds them
    again among a kernel's refs.
    """

    def __init__(self, problem: Problem, plan: Table | None, labels: Labels | None, columns: int):
        self.problem, self.plan, self.labels = problem, plan, labels
        self.steps = columns if plan is None else plan.shape[-1]

    def operands(self) -> list[Array]:
        """The plan, flat as SMEM wants it, and the labels."""
        plan = [] if self.plan is None else [jnp.asarray(self.plan).reshape(-1)]
        return plan + ([] if self.labels is None else [jnp.asarray(rows) for rows in self.labels])

    def label_specs(self, q_at, kv_at) -> list[pl.BlockSpec]:
        """Specs of the labels, from the index maps of queries and keys."""
        blocks = self.problem.blocks

        def spec(labels, size, at):
            batched = labels.shape[0] > 1
            return pl.BlockSpec((None, labels.shape[1], size), lambda *g: (g[0] if batched else 0, 0, at(*g)[2]))

        if self.labels is None:
            return []
        return [spec(self.labels.q, blocks.q, q_at), spec(self.labels.kv, blocks.kv, kv_at)]

    def label_scratch(self) -> list:
        """Where `Pairs` keeps the labels of a block of keys."""
        judge, blocks = self.problem.judge, self.problem.blocks
        return [] if self.labels is None else [pltpu.VMEM((len(judge.kv_rows), blocks.kv, LANES), jnp.int32)]

    def split(self, refs):
        """The plan's ref in a tuple, empty without one; `Pairs`, None without labels; the other refs."""
        plan, rest = (refs[:1], refs[1:]) if self.plan is not None else ((), refs)
        if self.labels is None:
            return plan, None, rest
        (q, kv), rest, spread = rest[:2], rest[2:-1], rest[-1]
        return plan, Pairs(self.problem.judge, q, kv, spread), rest

    def column(self, b, row, step, *plan_ref):
        """The column to visit."""
        return self._entry(b, row, step, *plan_ref) // 4 if plan_ref else step

    def visit(self, b, row, step, *plan_ref, visit):
        """Run `visit(masked)` as the plan says: not at all, with the mask, or without."""
        if not plan_ref:
            visit(self.labels is not None)
            return
        kind = self._entry(b, row, step, *plan_ref) % 4
        for value, masked in ((PARTIAL, True), (WHOLE, False)):
            pl.when(kind == value)(functools.partial(visit, masked))

    def _entry(self, b, row, step, plan_ref):
        batch, rows, steps = self.plan.shape
        return plan_ref[((b if batch > 1 else 0) * rows + row) * steps + step]


def compiler_params(dims: tuple[str, ...]):
    return pltpu.CompilerParams(dimension_semantics=dims, vmem_limit_bytes=64 * 2**20)
