"""Numbers of a build's configuration: each has a range, and what lies outside is named before any work."""

import dataclasses
import math
from dataclasses import replace

import pytest
from videodit_data.footage.config import RANGES, BuildConfig, numbers_of
from videodit_data.footage.describe import CaptionerConfig
from videodit_data.footage.filters import Filter
from videodit_data.footage.shards import ShardConfig
from videodit_data.video.transcode import Recode

WHOLE = BuildConfig(
    captioner=CaptionerConfig(per_minute=60.0),
    recode=Recode(short_side=256),
    shards=ShardConfig(bytes=2**30),
    filters=dataclasses.replace(BuildConfig().filters, motion=Filter(least=0.1, most=2.0)),
)
WHOLE = replace(
    WHOLE, analysis=replace(WHOLE.analysis, shots=replace(WHOLE.analysis.shots, threshold=27.0))
)  # every number that can be None
NUMBERS = dict(numbers_of(WHOLE))
FILTERS = ["filters.motion.least", "filters.motion.most"]


def change(config: object, path: str, value: object) -> object:
    name, _, rest = path.partition(".")
    return replace(config, **{name: change(getattr(config, name), rest, value) if rest else value})


def test_every_number_has_a_range():
    assert NUMBERS.keys() == {*RANGES, *FILTERS}


@pytest.mark.parametrize("path", [*RANGES, *FILTERS])
def test_a_number_out_of_its_range_is_refused(path: str):
    odd = [math.nan, math.inf, -math.inf, -1e18, 1e18] if isinstance(NUMBERS[path], float) else [-1, 10**18]
    for value in odd:
        with pytest.raises(ValueError, match=r"\w") as refused:
            change(WHOLE, path, value)
        assert len(str(refused.value)) < 200
    assert change(WHOLE, path, NUMBERS[path]) == WHOLE
