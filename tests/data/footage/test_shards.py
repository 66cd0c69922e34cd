import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.footage.shards import ShardConfig, shard_of
from videodit_data.storage.records import even_ranges


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_a_position_is_in_the_shard_whose_range_holds_it(total, data):
    shards = data.draw(st.integers(1, total))
    ranges = even_ranges(total, shards)
    assert [shard_of(position, total, shards) for position in range(total)] == [
        number for number, places in enumerate(ranges) for _ in places
    ]


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(0, 10**9), st.integers(1, 10**8))
def test_shards_are_no_larger_than_asked_and_none_is_empty(clips, most, size, most_bytes):
    shards = ShardConfig(most, most_bytes).count(clips, size)
    assert 1 <= shards <= clips and -(-clips // shards) <= most
    assert shards == clips or size / shards <= most_bytes


def test_shards_without_room_are_refused():
    with pytest.raises(ValueError, match="at least one clip and one byte, not 0 and None"):
        ShardConfig(0)
