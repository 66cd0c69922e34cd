"""Scores of clips against their captions: the shares of statements that hold, by kind."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from videodit.evals.toyworld.judge import verify
from videodit.evals.toyworld.world import Statement, Verdict, World


@dataclass(frozen=True)
class Scores:
    """Shares of statements that hold.

    Attributes:
        share: by kind.
        count: the number of statements, by kind.
        all: the share of clips for which every statement holds.
        clips: the number of clips.
    """

    share: Mapping[str, float]
    count: Mapping[str, int]
    all: float
    clips: int


def judge(
    clips: Iterable[UInt8[np.ndarray, "T Y X 3"]], statements: Iterable[Sequence[Statement]], world: World
) -> list[list[Verdict]]:
    """Return the oracle's verdicts on the statements of each clip."""
    return [verify(clip, clip_statements, world) for clip, clip_statements in zip(clips, statements, strict=True)]


def score_verdicts(verdicts: Sequence[Sequence[Verdict]]) -> Scores:
    """Return the shares of the statements that hold, by kind.

    Raises:
        ValueError: if there is no clip.
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
