"""The base of all masks: integer labels of the tokens, and a rule over their differences.

The size of a mask does not grow with the sequence, and one rule serves every reader: `materialize` writes the mask out,
a kernel tests single pairs by the labels of their tokens, and `classify_blocks` whole blocks by the ranges of theirs.
"""

from __future__ import annotations

import abc
import ast
import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Span(NamedTuple):
    """A condition that allows a pair whose labels in row `label` have `low <= key - query <= high`."""

    label: int
    low: int
    high: int


# A pair is allowed if every span allows it.
Rule = tuple[Span, ...]
# Labels of the queries [rows, T] and of the keys [rows, S], int32.
Labels = tuple[np.ndarray, np.ndarray]

# Labels by row.
Rows = Sequence[Any] | Mapping[int, Any]

# No bound: further than labels lie apart.
FAR = 2**30

# The masks that `parse_mask` reads, by name.
_KINDS: dict[str, type[Mask]] = {}


class SequenceOffsets(NamedTuple):
    """The part of longer sequences that the queries and keys of a call are, as on a device of a ring.

    The mask is for sequences of `q_len` and `kv_len` tokens; the queries of the call start at `q_start`, its keys at
    `kv_start`. The starts may be traced.
    """

    q_start: int | Array
    kv_start: int | Array
    q_len: int
    kv_len: int


class Mask(abc.ABC):
    """Base of all masks; `a & b` allows what both allow. Masks are hashable: they are static arguments of `jax.jit`."""

    rule: Rule

    @abc.abstractmethod
    def labels(self, q_len: int, kv_len: int) -> Labels:
        """Return the labels of the tokens of two sequences.

        Raises:
            ValueError: if the mask does not fit their lengths.
        """

    def count_pairs(self, q_len: int, kv_len: int) -> int:
        """Count the pairs that are allowed, in memory that does not grow with the square of the length."""
        q_labels, kv_labels = self.labels(q_len, kv_len)
        q_kinds, q_counts = np.unique(q_labels, axis=1, return_counts=True)
        kv_kinds, kv_counts = np.unique(kv_labels, axis=1, return_counts=True)
        chunks = np.array_split(np.arange(len(q_counts)), -(-len(q_counts) // 1024))
        return sum(
            int(q_counts[at] @ (materialize_rule(self.rule, q_kinds[:, at], kv_kinds) @ kv_counts)) for at in chunks
        )

    def __and__(self, other: Mask) -> Mask:
        return Both(self, other)

    def __init_subclass__(cls, *, parsed: bool = True):
        super().__init_subclass__()
        if parsed:
            _KINDS[cls.__name__] = cls


@dataclass(frozen=True)
class Both(Mask, parsed=False):
    """The intersection of two masks: allows the pairs that both allow."""

    first: Mask
    second: Mask

    @cached_property
    def _rows(self) -> int:
        return 1 + max(span.label for span in self.first.rule)

    @property
    def rule(self) -> Rule:
        moved = (span._replace(label=span.label + self._rows) for span in self.second.rule)
        return (*self.first.rule, *moved)

    def labels(self, q_len: int, kv_len: int) -> Labels:
        a, b = self.first.labels(q_len, kv_len), self.second.labels(q_len, kv_len)
        return np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])


def allows(rule: Rule, q_labels: Rows, kv_labels: Rows, q_most: Rows | None = None, kv_most: Rows | None = None):
    """Return whether pairs are allowed, from their labels, a row for every `Span.label`; the rows broadcast.

    With `q_most` and `kv_most`: whether all pairs are allowed whose labels lie between `q_labels` and `q_most`, and
    between `kv_labels` and `kv_most`; with least and most exchanged, whether some pair may be.
    """
    single = q_most is None
    q_most, kv_most = (q_labels, kv_labels) if single else (q_most, kv_most)
    conditions = []
    for label, low, high in rule:
        if single and low == high:
            conditions.append(kv_labels[label] == q_labels[label] + low)
            continue
        # The queries' side is shifted: in a kernel it is a row, while a difference would be a matrix.
        if low > -FAR:
            conditions.append(kv_labels[label] >= q_most[label] + low)
        if high < FAR:
            conditions.append(kv_most[label] <= q_labels[label] + high)
    return functools.reduce(operator.and_, conditions)


def slice_labels(labels: Sequence, offsets: SequenceOffsets | None, q_len: int, kv_len: int) -> Sequence:
    """Return the labels [rows, tokens] of the queries and keys of a call; numpy where offsets are known in tracing."""
    if offsets is None:
        return labels
    parts = zip(labels, (offsets.q_start, offsets.kv_start), (q_len, kv_len), strict=True)
    return [
        rows[:, start : start + size]
        if isinstance(start, int | np.integer)
        else lax.dynamic_slice_in_dim(jnp.asarray(rows), start, size, axis=1)
        for rows, start, size in parts
    ]


def materialize_rule(rule: Rule, q_labels, kv_labels):
    """Write a rule out, bool [T, S], from labels [rows, T] and [rows, S]."""
    return allows(rule, list(q_labels[:, :, None]), list(kv_labels[:, None, :]))


def materialize(mask: Mask, q_len: int, kv_len: int) -> np.ndarray:
    """Write the mask out, bool [T, S]."""
    return materialize_rule(mask.rule, *mask.labels(q_len, kv_len))


def parse_mask(text: str) -> Mask:
    """Read a mask as it is written in Python, `FrameCausal(1560, window=8) & LocalWindow(...)`.

    Raises:
        ValueError: if it is anything else than calls of masks with literal arguments, joined by `&`.
    """

    def build(node: ast.AST) -> Mask:
        match node:
            case ast.BinOp(left, ast.BitAnd(), right):
                return build(left) & build(right)
            case ast.Call(ast.Name(name), args, keywords) if name in _KINDS:
                named = {word.arg: ast.literal_eval(word.value) for word in keywords}
                return _KINDS[name](*map(ast.literal_eval, args), **named)
        raise ValueError("not a mask")

    try:
        return build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"a mask is {', '.join(_KINDS)} with numbers, joined by &; got {text!r}: {error}") from None
