import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from videodit_data.footage.config import Filters
from videodit_data.footage.filters import Filter, iterate_filters, judge

NUMBERS = st.floats(-1e6, 1e6)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_clip_stays_if_and_only_if_its_measure_lies_between_the_thresholds(value, one, two):
    least, most = sorted((one, two))
    verdict = judge({"motion": value}, Filters(motion=Filter(least, most)))
    assert (verdict is None) == (least <= value <= most)
    if verdict is not None:
        assert (verdict.measure, verdict.value) == ("motion", value)
        assert verdict.threshold == (least if value < least else most)


@pytest.mark.parametrize(("unknown", "reason"), [("keep", None), ("drop", "loudness unknown")])
def test_what_cannot_be_measured_is_kept_or_dropped_as_declared(unknown, reason):
    verdict = judge({"loudness": None}, Filters(loudness=Filter(-40.0, unknown=unknown)))
    assert (verdict and verdict.reason) == reason
    assert judge({"loudness": None}, Filters(loudness=Filter(unknown="keep"))) is None


def test_not_a_number_passes_no_threshold():
    assert judge({"motion": math.nan}, Filters(motion=Filter(least=0.0))).measure == "motion"
    assert judge({"motion": math.nan}, Filters(motion=Filter(most=0.0))).measure == "motion"


def test_the_first_filter_of_the_funnel_names_the_reason():
    names = [name for name, _ in iterate_filters(Filters())]
    measures = dict.fromkeys(names, 0.0)
    filters = dataclasses.replace(Filters(), **{name: Filter(least=1.0) for name in names})
    for name in names:
        verdict = judge(measures, filters)
        assert verdict.measure == name and verdict.reason == f"{name} below 1"
        measures[name] = 2.0
    assert judge(measures, filters) is None


def test_thresholds_that_cross_and_measures_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="nothing is at least 2 and at most 1"):
        Filter(2.0, 1.0)
    with pytest.raises(ValueError, match="a filter of text, but what is measured is bars, motion"):
        judge({"motion": 1.0, "bars": 0.0}, Filters(text=Filter(most=0.1)))
