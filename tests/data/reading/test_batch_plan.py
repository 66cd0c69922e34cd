import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.reading.batch_plan import BucketPlan, PackPlan
from videodit_data.reading.packing import Packing, first_fit_decreasing

COSTS = st.lists(st.integers(1, 100), min_size=1, max_size=120)


def bucketed(kinds, length):
    return BucketPlan(lambda position: kinds[position % len(kinds)], lambda kind: kind + 2, length)


def packed(costs, length, look_ahead=30):
    return PackPlan(
        lambda position: costs[position % len(costs)], Packing(100, clips=8, look_ahead=look_ahead), 3, length
    )


@settings(deadline=None)
@given(costs=COSTS, rows=st.integers(1, 5), most=st.integers(1, 9))
def test_rows_hold_what_fits_and_nothing_that_fits_is_left(costs, rows, most):
    bins = first_fit_decreasing(costs, rows, 100, most)
    items = [item for row in bins for item in row]
    assert len(items) == len(set(items)) and len(bins) == rows and 0 in items
    room = [100 - sum(costs[item] for item in row) for row in bins]
    assert min(room) >= 0 and max(map(len, bins)) <= most
    for item in set(range(len(costs))) - set(items):
        assert all(costs[item] > free or len(row) == most for free, row in zip(room, bins, strict=True))


def test_an_item_larger_than_a_row_is_refused():
    with pytest.raises(ValueError, match="A clip of 101 tokens does not fit a packed sequence of 100"):
        first_fit_decreasing([3, 101], 2, 100, 4)


@settings(deadline=None)
@given(costs=COSTS, kind=st.sampled_from(["bucket", "pack"]))
def test_one_pass_serves_every_clip_once(costs, kind):
    plan = bucketed([c % 3 for c in costs], len(costs)) if kind == "bucket" else packed(costs, len(costs))
    batches = list(plan)
    assert sorted(position for batch in batches for row in batch for position in row) == list(range(len(costs)))
    if kind == "bucket":
        for batch in batches:
            kinds = {costs[position] % 3 for row in batch for position in row}
            assert len(kinds) == 1 and len(batch) == kinds.pop() + 2


@settings(deadline=None)
@given(costs=COSTS, kind=st.sampled_from(["bucket", "pack"]), after=st.integers(0, 12))
def test_a_plan_resumes_from_its_state(costs, kind, after):
    def fresh():
        return bucketed([c % 3 for c in costs], None) if kind == "bucket" else packed(costs, None)

    plan, other = fresh(), fresh()
    for _ in range(after):
        next(plan)
    other.set_state(json.loads(json.dumps(plan.get_state())))
    assert list(itertools.islice(plan, 6)) == list(itertools.islice(other, 6))


def test_a_state_of_larger_batches_loses_nothing():
    """Check that clips held back by large batches are served in several smaller ones."""
    large = BucketPlan(lambda position: position % 2, lambda bucket: 8, 40)
    positions = [position for row in next(large) for position in row]
    state = large.get_state()
    assert len(state["held"]) == 7
    small = BucketPlan(lambda position: position % 2, lambda bucket: 2, 40)
    small.set_state(json.loads(json.dumps(state)))
    batches = list(small)
    assert all(len(batch) == 2 and len({position % 2 for row in batch for position in row}) == 1 for batch in batches)
    assert sorted(positions + [position for batch in batches for row in batch for position in row]) == list(range(40))


def test_no_clip_waits_for_ever():
    """Check clips that are never the best choice: large clips fill every row alone, without an end."""
    costs = [100] * 29 + [1]
    plan, waited = packed(costs, None), {}
    for number in range(40):
        for row in next(plan):
            waited |= dict.fromkeys(row, number)
    # At most thirty are in sight, and the oldest goes with every batch.
    assert all(position in waited for position in range(40 * 3 - 30))


def test_rows_are_nearly_full():
    costs = [7, 13, 20, 31, 44, 58, 9, 25, 66, 3]
    plan = packed(costs, None, look_ahead=60)
    batches = list(itertools.islice(plan, 50))
    used = sum(costs[position % 10] for batch in batches for row in batch for position in row)
    assert used / (50 * 3 * 100) > 0.95
