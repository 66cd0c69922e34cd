"""Scores: shares of statements that hold, by kind."""

import pytest

from videodit.evals.toyworld import Verdict
from videodit.evals.toyworld.scores import score_verdicts


def verdict(kind: str, holds: bool) -> Verdict:
    return Verdict(kind, "value", None, holds, "measured", 1.0)


def test_shares_are_by_kind_and_by_clip():
    result = score_verdicts(
        [
            [verdict("colour", True), verdict("shape", True)],
            [verdict("colour", True), verdict("shape", False)],
            [verdict("colour", False)],
            [verdict("colour", True)],
        ]
    )
    assert result.share == {"colour": 0.75, "shape": 0.5}
    assert result.count == {"colour": 4, "shape": 2}
    assert result.all == 0.5
    assert result.clips == 4


def test_no_clips_are_no_score():
    with pytest.raises(ValueError, match="give at least one"):
        score_verdicts([])
