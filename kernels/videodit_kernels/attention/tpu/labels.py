"""Labels of the tokens as the kernels read them: padded, stacked, and packed for cheap tests where they are known when
tracing.

A window over three dims costs six comparisons per pair, more than the softmax. There are two ways around them:

    words   Labels share an int32, each in a field with a guard bit above it: `key - low` and `high - key` keep the
            guard bits of all fields exactly where the key is within every span. That is five operations for any
            number of spans.
    slots   Where the matrix unit is deeper than a head dim, the product that computes the scores also adds the bias of
            the mask, at no cost (`pairs.py`). A slot of that depth is a value that labels take in a block of keys.
"""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from videodit_kernels.attention.masks import FAR, Mask, Rows, Rule, SequenceOffsets, Span, allows, slice_labels

# Lanes of a vector register.
LANES = 128

# A value that no key's label has.
NOWHERE = -(2**31)

# A numpy array where it is known when tracing.
Table = Array | np.ndarray


class Labels(NamedTuple):
    """Labels of the tokens, int32 [B or 1, rows, T] and [B or 1, rows, S]; rows a multiple of eight, a tile's.

    And the value of every slot in every block of keys, int32 [S / block, depth]; None where there are no slots.
    """

    q: Table
    kv: Table
    values: np.ndarray | None = None


class Word(NamedTuple):
    """A packed condition that allows a pair if no guard bit is lost.

    Row `row` of the queries' labels holds the least keys allowed, and the next row the greatest.
    """

    row: int
    guards: int


class Slots(NamedTuple):
    """The slots `first` to `first + count` (a multiple of 8), with values of the keys' labels that `span` tests."""

    span: Span
    first: int
    count: int


class Predicate(NamedTuple):
    """The test that a kernel applies to a pair of labels: the rule, a part of it in words or in slots."""

    words: tuple[Word, ...] = ()
    rule: Rule = ()
    slots: tuple[Slots, ...] = ()

    @property
    def kv_rows(self) -> list[int]:
        """Return the rows of the keys' labels that are read."""
        return sorted({word.row for word in self.words} | {span.label for span in self.rule})

    def allows(self, q: Rows, kv: Rows):
        """Return whether pairs are allowed, from their labels, with a row for every index in `words` and `rule`."""
        every = [((kv[row] - q[row]) & (q[row + 1] - kv[row]) & guards) == guards for row, guards in self.words]
        return functools.reduce(operator.and_, every + ([allows(self.rule, q, kv)] if self.rule else []))


def label_tokens(
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    q_len: int,
    kv_len: int,
    q_padded: int,
    kv_padded: int,
    offsets: SequenceOffsets | None = None,
    kv_block: int = 0,
    spare: int = 0,
) -> tuple[Rule, Predicate, Labels | None]:
    """Return one rule for mask, segments and padding, its predicate for a kernel, and the labels that both read.

    Padded queries get the labels of the last one; no query attends to padded keys. With `spare` slots for each
    `kv_block` keys, the spans known when tracing go into slots if all of them fit: never segments, and a mask unless
    its offsets are traced.
    """
    rule: Rule = ()
    predicate = Predicate()
    q_rows: list[Table] = []
    kv_rows: list[Table] = []
    if mask is not None:
        labels = mask.labels(*((q_len, kv_len) if offsets is None else (offsets.q_len, offsets.kv_len)))
        rule, (predicate, *labels) = mask.rule, _pack(mask.rule, *labels)
        for rows, part in zip((q_rows, kv_rows), slice_labels(labels, offsets, q_len, kv_len), strict=True):
            rows.extend(part[:, None])

    def equal(q: Table, kv: Table) -> Span:
        q_rows.append(q)
        kv_rows.append(kv)
        return Span(len(q_rows) - 1, 0, 0)

    spans = [equal(*segments)] if segments is not None else []
    q_rows, kv_rows = ([_extend(row, n) for row in rows] for rows, n in ((q_rows, q_padded), (kv_rows, kv_padded)))
    if kv_padded > kv_len:
        beyond = (np.arange(kv_padded) >= kv_len).astype(np.int32)
        spans.append(equal(np.zeros((1, q_padded), np.int32), beyond[None]))
    rule = (*rule, *spans)
    if not rule:
        return (), Predicate(), None
    predicate, values = predicate._replace(rule=(*predicate.rule, *spans)), None
    known = [span for span in rule if isinstance(kv_rows[span.label], np.ndarray)]
    if spare and known and (mask is None or set(mask.rule) <= set(known)):
        slots, slot_values = _slots(known, kv_rows, kv_block)
        if slot_values.shape[1] <= spare:
            predicate = Predicate((), tuple(span for span in rule if span not in known), slots)
            values = np.pad(slot_values, ((0, 0), (0, spare - slot_values.shape[1])), constant_values=NOWHERE)
    return rule, predicate, Labels(_stack(q_rows), _stack(kv_rows), values)


def _slots(spans: list[Span], kv_rows: list[Table], block: int) -> tuple[tuple[Slots, ...], np.ndarray]:
    """Return a slot for every value that a span's labels take in a block, and the values [blocks, slots]."""
    slots, values = [], []
    for span in spans:
        distinct = [np.unique(part) for part in kv_rows[span.label].reshape(-1, block)]
        count = _eights(max(map(len, distinct)))
        slots.append(Slots(span, sum(map(len, values)), count))
        values.append(np.stack([np.pad(x, (0, count - len(x)), constant_values=NOWHERE) for x in distinct], axis=1))
    return tuple(slots), np.concatenate(values).T


def _eights(count: int) -> int:
    return -(-count // 8) * 8


def _extend(row: Table, length: int) -> Table:
    xp = np if isinstance(row, np.ndarray) else jnp
    return xp.pad(row, ((0, 0), (0, length - row.shape[-1])), mode="edge")


def _stack(rows: list[Table]) -> Table:
    """Stack rows [B or 1, T] into one array [B or 1, rows, T], padded to a multiple of eight rows."""
    rows = rows + [np.zeros((1, rows[0].shape[-1]), np.int32)] * (_eights(len(rows)) - len(rows))
    xp = np if all(isinstance(x, np.ndarray) for x in rows) else jnp
    batch = max(x.shape[0] for x in rows)
    return xp.stack([xp.broadcast_to(x, (batch, x.shape[-1])) for x in rows], axis=1).astype(np.int32)


def _pack(rule: Rule, q_labels: np.ndarray, kv_labels: np.ndarray) -> tuple[Predicate, np.ndarray, np.ndarray]:
    """Pack spans into words where that saves operations; append the words' rows to labels [rows, T] and [rows, S]."""
    q_rows, kv_rows = list(q_labels), list(kv_labels)
    words: list[Word] = []
    rest: list[Span] = []
    fields: list[tuple[Span, int]] = []

    def close():
        # A word is five operations; a comparison and the joining, two.
        if sum((span.low > -FAR) + (span.high < FAR) for span, _ in fields) > 3:
            words.append(_word(fields, q_rows, kv_rows))
        else:
            rest.extend(span for span, _ in fields)
        fields.clear()

    for span in rule:
        row = kv_labels[span.label]
        bits = int(row.max() - row.min() + 2).bit_length() + 1
        if bits + sum(size for _, size in fields) > 32:
            close()
        fields.append((span, bits))
    close()
    return Predicate(tuple(words), tuple(rest)), np.stack(q_rows), np.stack(kv_rows)


def _word(fields: list[tuple[Span, int]], q_rows: list[np.ndarray], kv_rows: list[np.ndarray]) -> Word:
    """Append the rows of a word, which packs spans with the bits that each needs, and return the word."""
    low = high = kv = guards = at = 0
    for span, bits in fields:
        guard = 1 << (bits - 1)
        q_row, kv_row = (rows[span.label].astype(np.int64) for rows in (q_rows, kv_rows))
        base, most = kv_row.min() - 1, kv_row.max() - kv_row.min() + 1
        # Bounds beyond the keys are moved to just beyond them, which allows the same pairs.
        low = low + (np.clip(q_row + span.low - base, 0, most + 1) << at)
        high = high + ((np.clip(q_row + span.high - base, 0, most) + 2 * guard) << at)
        kv = kv + ((kv_row - base + guard) << at)
        guards += guard << at
        at += bits

    def int32(x):
        return (np.asarray(x) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)

    q_rows.extend([int32(low), int32(high)])
    kv_rows.extend([int32(kv), np.zeros_like(int32(kv))])
    return Word(len(q_rows) - 2, int(int32(guards)))
