"""Clips scored against their captions: verdicts to shares by kind of statement."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from videodit.evals.toyworld.judge import verify
from videodit.evals.toyworld.world import Statement, Verdict, World


@dataclass(frozen=True)
class Scores:
    """How many statements of each kind were checked, and what share of them held.

    share, count: by kind. all: the share of clips of which every statement held. clips: how many were judged.
    """

    share: Mapping[str, float]
    count: Mapping[str, int]
    all: float
    clips: int


def judge(
    clips: Iterable[UInt8[np.ndarray, "T Y X 3"]], statements: Iterable[Sequence[Statement]], world: World
) -> list[list[Verdict]]:
    """Return the oracle's verdicts on each clip's own statements."""
    return [verify(clip, stated, world) for clip, stated in zip(clips, statements, strict=True)]


def score_verdicts(verdicts: Sequence[Sequence[Verdict]]) -> Scores:
    """Return the shares of the statements that hold, by kind.

    Raises:
        ValueError: when there is no clip.
    """
    if not verdicts:
        raise ValueError("there are no clips to score: give at least one")
    holds: dict[str, list[bool]] = defaultdict(list)
    for verdict in (verdict for clip in verdicts for verdict in clip):
        holds[verdict.kind].append(verdict.holds)
    return Scores(
        share={kind: float(np.mean(values)) for kind, values in sorted(holds.items())},
        count={kind: len(values) for kind, values in sorted(holds.items())},
        all=float(np.mean([all(verdict.holds for verdict in clip) for clip in verdicts])),
        clips=len(verdicts),
    )
