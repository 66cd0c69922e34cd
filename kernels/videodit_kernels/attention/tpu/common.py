"""Code shared by the forward and the backward kernel: block sizes, and the order in which a grid visits blocks."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from videodit_kernels.attention.blocks import EMPTY, PARTIAL, WHOLE
from videodit_kernels.attention.tpu.labels import Predicate, Table
from videodit_kernels.attention.tpu.pairs import Pairs

LOG2_E = 1.4426950408889634


class Blocks(NamedTuple):
    """Tokens that a grid step holds, and tokens of them that one product takes at once."""

    q: int = 2048
    kv: int = 2048
    keys: int = 512  # in the forward kernel, where a product takes all queries of the block
    d_queries: int = 256  # in the backward kernel
    d_keys: int = 256


class Problem(NamedTuple):
    """The static arguments that a kernel is compiled for."""

    predicate: Predicate  # empty: every query attends to every key
    scale: float
    blocks: Blocks
    interpret: bool | pltpu.InterpretParams
    residuals: str | None = None  # the name of the output and log-sum-exp for `jax.checkpoint` policies


def plan_visits(kinds):
    """Return the blocks to visit in every row of a table of `blocks.classify_blocks`, int32 of its shape or narrower.

    An entry is `4 * column + kind`. The blocks to visit come first; the other entries repeat the last of them with the
    kind EMPTY, so that nothing more is fetched.
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
    """The blocks that a grid (batch, head, row, step) visits: all columns of a row, or those of a plan.

    The plan is a kernel's first operand and those of `pairs` follow; the scratch of `pairs` comes last. `split` relies
    on this order to find them among a kernel's refs.
    """

    def __init__(self, plan: Table | None, pairs: Pairs | None, columns: int):
        self.plan, self.pairs = plan, pairs
        self.steps = columns if plan is None else plan.shape[-1]

    def operands(self) -> list[Array]:
        """Return the plan, flattened for SMEM, and the operands of the pairs."""
        plan = [] if self.plan is None else [jnp.asarray(self.plan).reshape(-1)]
        return plan + ([] if self.pairs is None else self.pairs.operands())

    def specs(self, q_at, kv_at) -> list[pl.BlockSpec]:
        """Return the specs of all operands but the plan, from the index maps of queries and keys."""
        return [] if self.pairs is None else self.pairs.specs(q_at, kv_at)

    def scratch(self) -> list:
        """Return the scratch shapes that follow a kernel's own."""
        return [] if self.pairs is None else self.pairs.scratch()

    def split(self, refs):
        """Return the plan's ref in a tuple, empty without one, and a kernel's own refs; bind the rest to the pairs."""
        plan, refs = (refs[:1], refs[1:]) if self.plan is not None else ((), refs)
        if self.pairs is None:
            return plan, refs
        first, last = self.pairs.count, len(refs) - len(self.pairs.scratch())
        self.pairs.bind(refs[:first], refs[last:])
        return plan, refs[first:last]

    def column(self, b, row, step, *plan_ref):
        """Return the column to visit."""
        return self._entry(b, row, step, *plan_ref) // 4 if plan_ref else step

    def visit(self, b, row, step, *plan_ref, visit):
        """Run `visit(masked)` as the plan says: not at all, with the mask, or without."""
        if not plan_ref:
            visit(self.pairs is not None)
            return
        kind = self._entry(b, row, step, *plan_ref) % 4
        for value, masked in ((PARTIAL, True), (WHOLE, False)):
            pl.when(kind == value)(functools.partial(visit, masked))

    def _entry(self, b, row, step, plan_ref):
        batch, rows, steps = self.plan.shape
        return plan_ref[((b if batch > 1 else 0) * rows + row) * steps + step]


def compiler_params(dims: tuple[str, ...]):
    return pltpu.CompilerParams(dimension_semantics=dims, vmem_limit_bytes=64 * 2**20)
