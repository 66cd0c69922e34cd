"""The protocol of a metric: from clips and their data set to scores, and what a report shows of them."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8

from videodit.evals.html_report import Adherence, KeyFigure, Verdict
from videodit.inference.pipeline import Pipeline
from videodit.registry import Registry

Frames = UInt8[np.ndarray, "T Y X 3"]


@dataclass(frozen=True)
class Samples:
    """What a metric is computed from: clips generated for the captions of a data set, and the real ones.

    Attributes:
        pipeline: the model that generated them.
        dataset: the directory of the data set; info: what its manifest records, the toy world's rules among it.
        prompts: the first caption of each clip.
        generated, real: the clips, by prompt, as bytes.
    """

    pipeline: Pipeline
    dataset: str
    info: Mapping[str, Any]
    prompts: Sequence[str]
    generated: Sequence[Frames]
    real: Sequence[Frames]


@dataclass(frozen=True)
class Evaluation:
    """What a metric found.

    Attributes:
        scores: by name, as `metrics.json` has them.
        figures, adherence: key figures and shares of statements that hold, as the report shows them.
        verdicts: on the statements of each prompt, if the metric judges such.
    """

    scores: Mapping[str, Any]
    figures: Sequence[KeyFigure] = ()
    adherence: Sequence[Adherence] = ()
    verdicts: Sequence[Sequence[Verdict]] = field(default_factory=list)


class Evaluator(abc.ABC):
    """A metric."""

    def check(self, dataset: str, info: Mapping[str, Any]) -> None:
        """Raise ValueError for a data set that the metric is not for, before anything is sampled.

        Args:
            info: what the data set's manifest records.
        """
        return None

    @abc.abstractmethod
    def evaluate(self, samples: Samples) -> Evaluation:
        """Compute the metric."""


EVALUATORS: Registry[type[Evaluator]] = Registry("metric", "videodit.evals.metrics")
