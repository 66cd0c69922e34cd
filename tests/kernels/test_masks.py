"""Masks against their definitions in words, and blocks against the masks written out."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_kernels.attention import (
    FrameCausal,
    LocalWindow,
    Padded,
    SequenceOffsets,
    SlidingTiles,
    SpatialOnly,
    TemporalOnly,
    TileOrdered,
    from_tiles,
    to_tiles,
)
from videodit_kernels.attention.blocks import EMPTY, PARTIAL, WHOLE, classify_blocks
from videodit_kernels.attention.masks import allows, materialize, parse_mask
from videodit_kernels.attention.tiles import coordinates, tile_order
from videodit_kernels.attention.tpu.common import plan_visits
from videodit_kernels.attention.tpu.labels import label_tokens

dims = st.tuples(*[st.integers(1, 6)] * 3)
frame_masks = st.builds(
    FrameCausal, st.integers(1, 40), st.none() | st.integers(1, 5), st.integers(0, 3), start=st.integers(0, 4)
)


@given(frame_masks, st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_a_frame_sees_itself_those_before_it_within_the_window_and_the_sinks(mask, q_len, kv_len):
    found = materialize(mask, q_len, kv_len)
    for i in range(0, q_len, 7):
        for j in range(0, kv_len, 5):
            q, kv = mask.start + i // mask.frame, j // mask.frame
            near = mask.window is None or q - kv < mask.window
            assert found[i, j] == (kv <= q and (near or kv < mask.sinks))


@given(dims, dims)
@settings(max_examples=60, deadline=None)
def test_tile_order_is_a_permutation_with_its_inverse_and_keeps_tiles_together(grid, tile):
    order = tile_order(grid, tile)
    assert sorted(order) == list(range(math.prod(grid)))
    x = jnp.arange(2 * len(order)).reshape(2, -1)
    np.testing.assert_array_equal(from_tiles(to_tiles(x, grid, tile), grid, tile), x)
    positions = coordinates(grid, tile)
    np.testing.assert_array_equal(np.ravel_multi_index(tuple(positions), grid), order)
    tiles = [tuple(at) for at in (positions // np.array(tile)[:, None]).T]
    changes = sum(a != b for a, b in itertools.pairwise(tiles))
    assert changes == len(set(tiles)) - 1


@given(dims, dims, dims)
@settings(max_examples=40, deadline=None)
def test_local_windows_hold_as_many_keys_for_every_query_and_lie_around_it(grid, tile, window):
    found = materialize(LocalWindow(grid, tile, window), *[math.prod(grid)] * 2)
    assert (found.sum(1) == math.prod(min(w, g) for w, g in zip(window, grid, strict=True))).all()
    assert found.diagonal().all()
    positions = coordinates(grid, tile)
    for q, allowed in enumerate(found):
        for dim in range(3):
            at, size, width = positions[dim, q], grid[dim], min(window[dim], grid[dim])
            first = min(max(at - width // 2, 0), size - width)
            key_positions = np.unique(positions[dim, allowed])
            np.testing.assert_array_equal(key_positions, np.arange(first, first + width))


@given(dims, dims, dims)
@settings(max_examples=40, deadline=None)
def test_sliding_tiles_are_local_windows_of_tiles(grid, tile, window):
    tokens = math.prod(grid)
    found = materialize(SlidingTiles(grid, tile, window), tokens, tokens)
    tiles = coordinates(grid, tile) // np.array(tile)[:, None]
    counts = tuple(-(-g // t) for g, t in zip(grid, tile, strict=True))
    coarse = materialize(LocalWindow(counts, (1, 1, 1), window), *[math.prod(counts)] * 2)
    number = np.ravel_multi_index(tuple(tiles), counts)
    np.testing.assert_array_equal(found, coarse[np.ix_(number, number)])


@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_factorized_masks_join_a_frame_and_a_position(frame, q_len, kv_len):
    (q_t, q_at), (kv_t, kv_at) = (divmod(np.arange(size), frame) for size in (q_len, kv_len))
    np.testing.assert_array_equal(materialize(SpatialOnly(frame), q_len, kv_len), q_t[:, None] == kv_t)
    np.testing.assert_array_equal(materialize(TemporalOnly(frame), q_len, kv_len), q_at[:, None] == kv_at)


@given(dims, dims, dims, frame_masks)
@settings(max_examples=40, deadline=None)
def test_pairs_are_counted_as_the_mask_written_out_has_them(grid, tile, window, frames):
    tokens = math.prod(grid)
    windows = LocalWindow(grid, tile, window), SlidingTiles(grid, tile, window)
    for mask in (*windows, frames, SpatialOnly(frames.frame), TemporalOnly(frames.frame), windows[1] & frames):
        assert mask.count_pairs(tokens, tokens) == materialize(mask, tokens, tokens).sum()
    assert frames.count_pairs(30, 70) == materialize(frames, 30, 70).sum()


@given(dims, dims, frame_masks, st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_mask_follows_its_tokens_into_tile_order_and_behind_padding(grid, tile, mask, padding):
    tokens, order = math.prod(grid), tile_order(grid, tile)
    expected = materialize(mask, tokens, tokens)[np.ix_(order, order)]
    ordered = TileOrdered(mask, grid, tile)
    np.testing.assert_array_equal(materialize(ordered, tokens, tokens), expected)
    padded = materialize(Padded(ordered, tokens), tokens + padding, tokens + padding)
    np.testing.assert_array_equal(padded[:tokens, :tokens], expected)
    with pytest.raises(ValueError, match=f"is for {tokens} tokens, got {tokens + 1} queries"):
        ordered.labels(tokens + 1, tokens)


def test_both_masks_hold_when_joined():
    a, b, c = FrameCausal(4, window=2, sinks=1), FrameCausal(6), LocalWindow((2, 3, 4), (1, 2, 2), (1, 2, 3))
    expected = materialize(a, 24, 24) & materialize(b, 24, 24) & materialize(c, 24, 24)
    np.testing.assert_array_equal(materialize(a & b & c, 24, 24), expected)
    np.testing.assert_array_equal(materialize(c & (b & a), 24, 24), expected)


def test_a_mask_is_read_as_it_is_written():
    for name in ("frames", "window", "aligned tiles", "local", "temporal"):
        assert parse_mask(repr(MASKS[name])) == MASKS[name]
    assert parse_mask(" FrameCausal(4, window=2) & LocalWindow((2, 3, 4), (1, 2, 2), window=(1, 2, 3))") == FrameCausal(
        4, window=2
    ) & LocalWindow((2, 3, 4), (1, 2, 2), (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FrameCausal(0)", "FrameCausal.frame is at least 1, got 0"),
        ("FrameCausal(open('x'))", "a mask is SpatialOnly, TemporalOnly, FrameCausal, LocalWindow, SlidingTiles"),
        ("FrameCausal(4", "was never closed"),
        ("Causal(4)", "not a mask"),
        ("FrameCausal(4, span=2)", "span"),
    ],
)
def test_what_is_no_mask_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mask(text)


MASKS = {
    "frames": FrameCausal(200),
    "window": FrameCausal(128, window=2, sinks=1),
    "aligned tiles": SlidingTiles((8, 16, 16), (4, 8, 8), (1, 1, 3)),
    "local": LocalWindow((8, 16, 16), (4, 4, 8), (3, 5, 5)),
    "spatial": SpatialOnly(200),
    "temporal": TemporalOnly(256),
    "both": SlidingTiles((8, 16, 16), (4, 8, 8), (1, 1, 3)) & FrameCausal(256),
}


@given(dims, dims, dims, frame_masks, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_words_test_as_the_rule_does(grid, tile, window, frames, padding):
    tokens = math.prod(grid)
    mask = LocalWindow(grid, tile, window) & frames & SlidingTiles(grid, tile, window)
    rule, predicate, labels = label_tokens(mask, None, tokens, tokens, tokens, tokens + padding)
    assert predicate.words and len(predicate.rule) < len(rule)
    q, kv = labels.q[0][:, :, None], labels.kv[0][:, None, :]
    for found in (predicate.allows(list(q), list(kv)), allows(rule, list(q), list(kv))):
        np.testing.assert_array_equal(found[:, :tokens], materialize(mask, tokens, tokens))
        assert not found[:, tokens:].any()


@given(dims, dims, dims, frame_masks, st.integers(0, 9), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_slots_add_something_exactly_where_the_rule_forbids(grid, tile, window, frames, padding, cut):
    tokens = math.prod(grid)
    mask, padded = LocalWindow(grid, tile, window) & frames, tokens + padding
    block = padded if padded % 3 or cut else padded // 3
    rule, predicate, labels = label_tokens(mask, None, tokens, tokens, tokens, padded, kv_block=block, spare=999)
    assert not predicate.kv_rows and [slots.span for slots in predicate.slots] == list(rule)
    forbidden = np.zeros((tokens, padded), int)
    for b, values in enumerate(labels.values):
        keys = slice(b * block, (b + 1) * block)
        for span, first, count in predicate.slots:
            found = values[first : first + count, None]
            one_hot = found == labels.kv[0][span.label, keys]
            outside = ~allows((span._replace(label=0),), [labels.q[0][span.label]], [found])
            forbidden[:, keys] += outside.T.astype(int) @ one_hot
            assert (one_hot.sum(0) == 1).all()
    np.testing.assert_array_equal(forbidden[:, :tokens] == 0, materialize(mask, tokens, tokens))
    assert (forbidden[:, tokens:] > 0).all()


def test_a_mask_with_more_values_than_slots_is_tested_in_words():
    mask = LocalWindow((4, 8, 8), (2, 4, 4), (3, 5, 5))
    sizes = [256] * 4
    # 2 + 4 + 4 values per block of 32 keys, each padded to a multiple of eight: 24 slots.
    assert label_tokens(mask, None, *sizes, kv_block=32, spare=24)[1].slots
    predicate = label_tokens(mask, None, *sizes, kv_block=32, spare=23)[1]
    assert predicate.words and not predicate.slots


def test_a_mask_at_traced_offsets_is_tested_in_words():
    mask, predicates = LocalWindow((4, 8, 8), (2, 4, 4), (3, 5, 5)), []

    def predicate(first):
        offsets = SequenceOffsets(first, first, 256, 256)
        predicates.append(label_tokens(mask, None, 128, 128, 128, 256, offsets, kv_block=128, spare=99)[1])
        return first

    jax.eval_shape(predicate, 0)
    predicate(128)
    assert predicates[0].words and not predicates[0].slots
    assert predicates[1].slots and not predicates[1].words


def test_a_word_holds_as_many_labels_as_fit():
    # Fields of 13, 3 and 3 bits, three times: 32 bits, then 25. Three comparisons are no dearer than a word.
    mask = LocalWindow((4000, 1, 1), (1, 1, 1), (3, 1, 1))
    assert len(label_tokens(mask & mask & mask, None, *[4000] * 4)[1].words) == 2
    assert not label_tokens(FrameCausal(8, window=2), None, *[64] * 4)[1].words


@pytest.mark.parametrize("blocks", [(256, 256), (512, 128), (128, 1024)])
@pytest.mark.parametrize("name", MASKS)
def test_blocks_are_empty_or_whole_only_where_the_mask_is(name, blocks):
    mask = MASKS[name]
    kinds = classify_blocks(mask.rule, *mask.labels(2048, 2048), *blocks)
    q, kv = blocks
    dense = materialize(mask, 2048, 2048).reshape(2048 // q, q, 2048 // kv, kv)
    some, every = dense.any((1, 3)), dense.all((1, 3))
    assert not (some & (kinds == EMPTY)).any() and not (~every & (kinds == WHOLE)).any()
    assert set(np.unique(kinds)) <= {EMPTY, PARTIAL, WHOLE}
    if name in ("window", "aligned tiles"):
        np.testing.assert_array_equal(kinds, some.astype(int) + every)
    # Traced labels are tested alike.
    traced = classify_blocks(mask.rule, *map(jnp.asarray, mask.labels(2048, 2048)), *blocks)
    np.testing.assert_array_equal(traced, kinds)


def test_a_plan_visits_each_block_once_in_order_and_then_stays():
    kinds = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [2, 2, 1, 0]], np.int32)
    plan = plan_visits(kinds)
    np.testing.assert_array_equal(plan % 4, [[2, 1, 0], [0, 0, 0], [2, 2, 1]])
    np.testing.assert_array_equal(plan // 4, [[1, 3, 3], [0, 0, 0], [0, 1, 2]])
    np.testing.assert_array_equal(plan_visits(jnp.asarray(kinds))[:, :3], plan)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameCausal(0), "FrameCausal.frame is at least 1, got 0"),
        (lambda: FrameCausal(4, window=0), "FrameCausal.window is at least 1, got 0"),
        (lambda: LocalWindow((2, 2, 2), (1, 1, 0), (1, 1, 1)), "LocalWindow.tile is"),
        (
            lambda: SlidingTiles((2, 2, 2), (1, 1, 1), (1, 1, 1)).labels(8, 9),
            "is for 8 tokens, got 8 queries and 9 keys",
        ),
    ],
)
def test_masks_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
