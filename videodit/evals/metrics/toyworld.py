"""Caption adherence in the toy world: the share of a prompt's statements that the oracle finds true."""

from collections.abc import Mapping

from videodit_data import toyworld

from videodit.evals.evaluator import EVALUATORS, Evaluation, Evaluator, Samples
from videodit.evals.html_report import Adherence, KeyFigure
from videodit.evals.toyworld import World
from videodit.evals.toyworld.scores import judge, score_verdicts
from videodit.provenance import JSON


@EVALUATORS.register("toyworld")
class ToyworldAdherence(Evaluator):
    """The shares of statements that hold, by kind, of generated and of real clips."""

    def check(self, dataset: str, info: Mapping[str, JSON]) -> None:
        if not info.get("world"):
            raise ValueError(
                f"{dataset} is no toyworld data set: the oracle can check toyworld captions only; "
                "--metrics reconstruction takes any data set"
            )

    def evaluate(self, samples: Samples) -> Evaluation:
        world = World(**samples.info["world"])
        statements = [toyworld.parse(prompt) for prompt in samples.prompts]
        verdicts = judge(samples.generated, statements, world)
        generated, real = score_verdicts(verdicts), score_verdicts(judge(samples.real, statements, world))
        chance = {
            "colour": 1 / len(world.palette),
            "shape": 1 / len(world.shapes),
            "motion": 1 / len(world.motions),
            "size": 1 / len(world.sizes),
        }
        return Evaluation(
            scores={
                "caption_adherence": dict(generated.share),
                "all_statements": generated.all,
                "oracle_on_real_clips": dict(real.share),
                "statements": dict(generated.count),
            },
            figures=[KeyFigure("Clips of which every statement holds", generated.all)],
            adherence=[
                Adherence(kind, share, real.share.get(kind), chance.get(kind), generated.count[kind])
                for kind, share in generated.share.items()
            ],
            verdicts=verdicts,
        )
