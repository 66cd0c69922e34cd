"""Evaluate a model on a data set: sample for its captions, compute metrics, write a report."""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from videodit_data.reading.sample import ClipShape, decode_pixels
from videodit_data.storage.dataset import Dataset, open_directory
from videodit_data.storage.shard_check import ShardCheck

from videodit.checkpoint.atomic_write import write_text_atomically
from videodit.checkpoint.metrics_file import read_metrics
from videodit.diffusion.sample import SamplerConfig
from videodit.evals.evaluator import EVALUATORS, Evaluation, Evaluator, Samples
from videodit.evals.html_report import Clip, LossCurves, ReportData, write_report
from videodit.inference.clip_files import write_clip
from videodit.inference.pipeline import ConditionValue, Pipeline
from videodit.provenance import JSON

DEFAULT_METRICS = ("reconstruction", "toyworld")
BATCH = 32
SHOWN_CLIPS = 12  # in the report


def evaluate(
    pipeline: Pipeline,
    dataset: str | Path,
    out: str | Path,
    *,
    clips: int,
    seed: int,
    console: Console,
    sampler: SamplerConfig | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    conditions: Mapping[str, ConditionValue] | None = None,
) -> dict[str, JSON]:
    """Generate clips, compute metrics, and write `metrics.json`, the clips and a report.

    Args:
        out: directory of the results.
        clips: the number of clips; the first caption of as many clips is used.
        sampler: the run's if None.
        metrics: names in `EVALUATORS`.
        conditions: values of the model's further inputs by name, the same for all clips.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: for an unknown metric, less than one clip, a metric that does not apply to the data set, damaged
            metrics of a run, and when a file of the data set has changed since it was written.
    """
    if clips < 1:
        raise ValueError(f"{clips} clips to evaluate: give 1 or more")
    dataset, out, sampler = Path(dataset), Path(out), sampler or pipeline.run.sampler
    classes = {name: EVALUATORS.get(name) for name in metrics}
    for name, each in classes.items():
        if not (isinstance(each, type) and issubclass(each, Evaluator)):
            raise ValueError(f"{name} is no metric: it is no class of evals.evaluator.Evaluator")
    evaluators = [each() for each in classes.values()]
    data = open_directory(dataset)
    for evaluator in evaluators:
        evaluator.check(str(dataset), data.manifest.info)
    losses = [
        LossCurves("Transformer", read_metrics(pipeline.workdir)),
        LossCurves("Autoencoder", read_metrics(Path(pipeline.run.vae)), heldout="eval/l1"),
    ]
    provenance_of = functools.partial(pipeline.provenance, sampler=sampler, conditions=conditions, seed=seed)
    with ShardCheck([data]) as check:
        samples = sample_clips(
            pipeline, data, count=clips, seed=seed, sampler=sampler, conditions=conditions, console=console
        )
        check.finish()
    for index, (frames, prompt) in enumerate(zip(samples.generated, samples.prompts, strict=True)):
        provenance = provenance_of(prompt=prompt, index=index)
        write_clip(out / "samples" / f"{index:03d}.mp4", frames, pipeline.run.data.fps, provenance)
    evaluations = [evaluator.evaluate(samples) for evaluator in evaluators]
    scores: dict[str, JSON] = {"prompts": len(samples.prompts), "weights": pipeline.weights}
    for evaluation in evaluations:
        scores |= evaluation.scores
    scores["provenance"] = provenance_of(data=str(dataset), metrics=list(metrics))
    write_text_atomically(out / "metrics.json", json.dumps(scores, indent=2) + "\n")
    _write_report(out, samples, evaluations, losses, scores["provenance"])
    return scores


def sample_clips(
    pipeline: Pipeline,
    dataset: Dataset,
    *,
    count: int,
    seed: int,
    sampler: SamplerConfig,
    conditions: Mapping[str, ConditionValue] | None,
    console: Console,
) -> Samples:
    """Generate a clip for the first caption of each of the first clips of a data set."""
    data = pipeline.run.data
    shape = ClipShape(data.frames, data.height, data.width, data.fps)
    selected = list(itertools.islice(dataset.records, count))
    prompts = [record.captions[0] for record in selected]
    size = (shape.frames, shape.height, shape.width)
    real = [decode_pixels(record, shape) for record in selected]
    with console.status(f"sampling {len(prompts)} clips"):
        clips = pipeline.generate(prompts, size=size, seed=seed, sampler=sampler, conditions=conditions, batch=BATCH)
        generated = list(clips)
    return Samples(pipeline, dataset.path, dataset.manifest.info, prompts, generated, real)


def summarize(scores: dict[str, JSON]) -> str:
    """Return the key figures on one line."""
    parts = []
    if "caption_adherence" in scores:
        shares = "  ".join(f"{kind} {share:.2f}" for kind, share in scores["caption_adherence"].items())
        parts.append(f"caption adherence over {scores['prompts']} prompts: {shares}")
    if "vae_psnr" in scores:
        parts.append(f"VAE {scores['vae_psnr']:.1f} dB")
    summarized = {"caption_adherence", "vae_psnr", "prompts", "all_statements"}
    parts += [f"{name} {score:.4g}" for name, score in scores.items() if name not in summarized and _is_number(score)]
    return "; ".join(parts)


def _is_number(score: JSON) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool)


def _write_report(
    out: Path,
    samples: Samples,
    evaluations: Sequence[Evaluation],
    losses: Sequence[LossCurves],
    provenance: dict[str, JSON],
) -> None:
    pipeline = samples.pipeline
    verdicts = next((each.verdicts for each in evaluations if each.verdicts), [()] * len(samples.prompts))
    judged_clips = list(zip(samples.prompts, verdicts, strict=True))[:SHOWN_CLIPS]
    report = ReportData(
        title="Text to video in a toy world" if samples.info.get("world") else "Text to video",
        summary=f"{len(samples.prompts)} held-out prompts, sampled with the {pipeline.weights} weights of step "
        f"{pipeline.step}." + " The oracle checks which statements of its prompt hold for each clip." * any(verdicts),
        figures=[figure for each in evaluations for figure in each.figures],
        adherence=[share for each in evaluations for share in each.adherence],
        losses=losses,
        clips=[
            Clip(prompt, (out / "samples" / f"{index:03d}.mp4").read_bytes(), verdicts=verdicts)
            for index, (prompt, verdicts) in enumerate(judged_clips)
        ],
        provenance=provenance,
    )
    write_report(out / "report.html", report)
