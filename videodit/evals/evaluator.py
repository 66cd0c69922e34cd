"""The protocol of a metric: from clips and their data set to scores and report figures."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8

from videodit.evals.html_report import Adherence, KeyFigure, Verdict
from videodit.inference.pipeline import Pipeline
from videodit.provenance import JSON
from videodit.registry import Registry

Frames = UInt8[np.ndarray, "T Y X 3"]


@dataclass(frozen=True)
class Samples:
    """The input of a metric: clips generated for the captions of a data set, and its real clips.

    Attributes:
        pipeline: the model that generated the clips.
        dataset: the directory of the data set.
        info: what its manifest records, like the rules of a toy world.
        prompts: the first caption of each clip.
        generated, real: the clips in the order of the prompts, uint8.
    """

    pipeline: Pipeline
    dataset: str
    info: Mapping[str, JSON]
    prompts: Sequence[str]
    generated: Sequence[Frames]
    real: Sequence[Frames]


@dataclass(frozen=True)
class Evaluation:
    """The output of a metric.

    Attributes:
        scores: by name, for `metrics.json`.
        figures: key figures, for the report.
        adherence: shares of statements that hold, for the report.
        verdicts: on the statements of each prompt, if the metric judges statements.
    """

    scores: Mapping[str, JSON]
    figures: Sequence[KeyFigure] = ()
    adherence: Sequence[Adherence] = ()
    verdicts: Sequence[Sequence[Verdict]] = field(default_factory=list)


class Evaluator(abc.ABC):
    """A metric."""

    def check(self, dataset: str, info: Mapping[str, JSON]) -> None:
        """Raise ValueError if the metric does not apply to a data set; called before clips are sampled.

        Args:
            info: what the data set's manifest records.
        """
        return None

    @abc.abstractmethod
    def evaluate(self, samples: Samples) -> Evaluation:
        """Compute the metric."""


EVALUATORS: Registry[type[Evaluator]] = Registry("metric", "videodit.evals.metrics")
