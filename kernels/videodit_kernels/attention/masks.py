"""Which keys a query may attend to: descriptions whose size does not grow with the sequence.

A mask gives every token a few integer labels (its frame, its place in a grid) and a rule over their differences. So one
rule serves every reader: `dense` writes the mask out, a kernel judges single pairs from the labels of their tokens, and
`blocks.classify` judges whole blocks from the ranges of theirs.
"""

from __future__ import annotations

import abc
import ast
import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from videodit_kernels.attention.tiles import Grid, coordinates, tile_counts


class Span(NamedTuple):
    """Allows a pair whose labels in row `label` have `low <= key - query <= high`."""

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


class Place(NamedTuple):
    """Where queries and keys lie in the sequences that a mask is for, as on a device of a ring; first token and length.

    The first tokens may be traced.
    """

    q_first: Any
    kv_first: Any
    q_len: int
    kv_len: int


class Mask(abc.ABC):
    """Base of the masks below; `a & b` allows what both allow."""

    rule: Rule

    @abc.abstractmethod
    def labels(self, q_len: int, kv_len: int) -> Labels:
        """Labels of the tokens of two sequences; `ValueError` if the mask does not fit their lengths."""

    def __and__(self, other: Mask) -> Mask:
        return Both(self, other)


@dataclass(frozen=True)
class FrameCausal(Mask):
    """A frame attends to itself and to the frames before it.

    Args:
        frame: tokens a frame.
        window: how many frames a frame sees, itself included; all by default.
        sinks: how many of the first frames every later frame sees besides (StreamingLLM, arXiv:2309.17453).
        start: the frame that the first query belongs to, where the keys begin earlier than the queries.

    The last frame may be cut short.
    """

    frame: int
    window: int | None = None
    sinks: int = 0
    start: int = 0

    def __post_init__(self):
        for name, least in (("frame", 1), ("window", 1), ("sinks", 0), ("start", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"FrameCausal.{name} is at least {least}, got {value}")

    @property
    def rule(self) -> Rule:
        causal = Span(0, -FAR, 0)
        return (causal,) if self.window is None else (causal, Span(1, 1 - self.window, FAR))

    def labels(self, q_len: int, kv_len: int) -> Labels:
        q = self.start + np.arange(q_len, dtype=np.int32) // self.frame
        kv = np.arange(kv_len, dtype=np.int32) // self.frame
        if self.window is None:
            return q[None], kv[None]
        # To the window, the sinks are as late as any query.
        return np.stack([q, q]), np.stack([kv, np.where(kv < self.sinks, np.maximum(kv, q[-1]), kv)])


@dataclass(frozen=True)
class _Window(Mask):
    """A window of fixed size around every query; it moves inwards at the borders, so that it always fits.

    Args:
        grid: tokens (t, h, w) of the video, in tile order (`tiles.to_tiles`).
        tile: the tile (t, h, w) of that order.
        window: size (t, h, w) of the window.
    """

    grid: Grid
    tile: Grid
    window: Grid

    def __post_init__(self):
        for name in ("grid", "tile", "window"):
            sizes = getattr(self, name)
            if len(sizes) != 3 or min(sizes) < 1:
                raise ValueError(f"{type(self).__name__}.{name} is (t, h, w), each at least 1; got {sizes}")

    @property
    def rule(self) -> Rule:
        return tuple(Span(dim, 0, size - 1) for dim, size in enumerate(self.window))

    @property
    @abc.abstractmethod
    def _places(self) -> tuple[np.ndarray, Grid]:
        """Place [3, T] of every token, and how many places there are."""

    @cached_property
    def _labels(self) -> Labels:
        places, counts = self._places
        size = np.minimum(self.window, counts)[:, None]
        first = np.clip(places - size // 2, 0, np.array(counts)[:, None] - size)
        return first.astype(np.int32), places.astype(np.int32)

    def labels(self, q_len: int, kv_len: int) -> Labels:
        tokens = math.prod(self.grid)
        if (q_len, kv_len) != (tokens, tokens):
            raise ValueError(
                f"{type(self).__name__} over a grid {self.grid} is for {tokens} tokens, "
                f"got {q_len} queries and {kv_len} keys"
            )
        return self._labels


class LocalWindow(_Window):
    """A window of `window` tokens (t, h, w) around every query (neighbourhood attention, arXiv:2204.07143)."""

    @property
    def _places(self) -> tuple[np.ndarray, Grid]:
        return coordinates(self.grid, self.tile), self.grid


class SlidingTiles(_Window):
    """A window of `window` tiles (t, h, w) around every query's tile (sliding tile attention, arXiv:2502.04507)."""

    @property
    def _places(self) -> tuple[np.ndarray, Grid]:
        return coordinates(self.grid, self.tile) // np.array(self.tile)[:, None], tile_counts(self.grid, self.tile)


@dataclass(frozen=True)
class Both(Mask):
    """What both masks allow."""

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
    """Whether pairs are allowed, from their labels, a row for every `Span.label`, which broadcast together.

    With `q_most` and `kv_most`: whether all pairs are, whose labels reach from `q_labels` to `q_most`, and from
    `kv_labels` to `kv_most`; and with least and most exchanged, whether some pair may be.
    """
    single = q_most is None
    q_most, kv_most = (q_labels, kv_labels) if single else (q_most, kv_most)
    every = []
    for label, low, high in rule:
        if single and low == high:
            every.append(kv_labels[label] == q_labels[label] + low)
            continue
        # The queries' side is shifted: in a kernel it is a row, while a difference would be a matrix.
        if low > -FAR:
            every.append(kv_labels[label] >= q_most[label] + low)
        if high < FAR:
            every.append(kv_most[label] <= q_labels[label] + high)
    return functools.reduce(operator.and_, every)


def placed(labels: Sequence, place: Place | None, q_len: int, kv_len: int) -> Sequence:
    """Labels [rows, tokens] of the queries and the keys at a place: numpy where it is known when tracing."""
    if place is None:
        return labels
    sizes = zip(labels, (place.q_first, place.kv_first), (q_len, kv_len), strict=True)
    return [
        rows[:, first : first + size]
        if isinstance(first, int | np.integer)
        else lax.dynamic_slice_in_dim(jnp.asarray(rows), first, size, axis=1)
        for rows, first, size in sizes
    ]


def written(rule: Rule, q_labels, kv_labels):
    """A rule written out, bool [T, S], from labels [rows, T] and [rows, S]."""
    return allows(rule, list(q_labels[:, :, None]), list(kv_labels[:, None, :]))


def dense(mask: Mask, q_len: int, kv_len: int) -> np.ndarray:
    """The mask written out, bool [T, S]."""
    return written(mask.rule, *mask.labels(q_len, kv_len))


def parse(text: str) -> Mask:
    """A mask from how it is written in Python, `FrameCausal(1560, window=8) & LocalWindow(...)`.

    Raises:
        ValueError: if it is anything else than calls of masks with literal arguments, joined by `&`.
    """
    kinds = {kind.__name__: kind for kind in (FrameCausal, LocalWindow, SlidingTiles)}

    def build(node: ast.AST) -> Mask:
        match node:
            case ast.BinOp(left, ast.BitAnd(), right):
                return build(left) & build(right)
            case ast.Call(ast.Name(name), args, keywords) if name in kinds:
                named = {word.arg: ast.literal_eval(word.value) for word in keywords}
                return kinds[name](*map(ast.literal_eval, args), **named)
        raise ValueError("not a mask")

    try:
        return build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"a mask is {', '.join(kinds)} with numbers, joined by &; got {text!r}: {error}") from None
