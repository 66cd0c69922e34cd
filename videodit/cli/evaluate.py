"""`videodit eval`: samples for held-out prompts, scored, in metrics.json and one HTML report."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from videodit_data.storage.records import Record

    from videodit.cli.pipeline import Pipeline
    from videodit.evals.harness import Scores
    from videodit.evals.toyworld import Verdict, World

EXAMPLES = """examples:
  videodit eval --checkpoint runs/quickstart/dit --data runs/quickstart/data/heldout --out runs/quickstart
  videodit eval --checkpoint runs/quickstart/dit --data data/toy --out scores --clips 256 --guidance 4
"""
SHOWN = 12


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "eval",
        parents=[common],
        help="score samples for held-out prompts",
        description="Generate clips for the captions of a toyworld data set and score them with its oracle.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="workdir of a transformer")
    parser.add_argument("--data", type=Path, required=True, help="held-out toyworld data set")
    parser.add_argument("--out", type=Path, required=True, help="where metrics.json, report.html and samples/ go")
    parser.add_argument("--clips", type=int, default=64, help="prompts: the first caption of as many clips")
    parser.add_argument("--step", type=int, help="checkpoint to take; the last one if not given")
    parser.add_argument("--weights", choices=("ema", "params"), default="ema")
    parser.add_argument("--steps", type=int, help="solver steps; as configured if not given")
    parser.add_argument("--solver", help="unipc, euler or heun; as configured if not given")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance; as configured if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit.cli.pipeline import Pipeline
    from videodit.cli.sample import sampler_of

    pipeline = Pipeline.load(args.checkpoint, weights=args.weights, step=args.step)
    sampler = sampler_of(args, pipeline)
    pipeline = dataclasses.replace(pipeline, run=dataclasses.replace(pipeline.run, sampler=sampler))
    metrics = evaluate(pipeline, args.data, args.out, clips=args.clips, seed=args.seed, console=console)
    console.print(summary(metrics), highlight=False)
    return 0


def summary(metrics: dict[str, Any]) -> str:
    """The key figures on one line."""
    shares = "  ".join(f"{kind} {share:.2f}" for kind, share in metrics["caption_adherence"].items())
    return f"caption adherence over {metrics['prompts']} prompts: {shares}; VAE {metrics['vae_psnr']:.1f} dB"


def evaluate(
    pipeline: "Pipeline", dataset: Path, out: Path, *, clips: int, seed: int, console: Console
) -> dict[str, Any]:
    """Samples, scores and reports; returns what metrics.json holds.

    Raises:
        ValueError: when the data set is no toyworld, whose captions alone can be checked.
    """
    from videodit_data import toyworld
    from videodit_data.reading.sample import ClipShape, pixels
    from videodit_data.storage.manifest import load, records

    from videodit.cli.outputs import write_clip
    from videodit.evals.harness import judge, scores

    world = _world(load(dataset).info, dataset)
    data = pipeline.run.data
    shape = ClipShape(data.frames, data.height, data.width, data.fps)
    held = records(dataset)
    some: list[Record] = [held[n] for n in range(min(clips, len(held)))]
    prompts = [record.captions[0] for record in some]
    statements = [toyworld.parse(prompt) for prompt in prompts]
    real = [pixels(record, shape) for record in some]

    made = []
    with console.status(f"sampling {len(prompts)} clips"):
        for frames in pipeline.generate(prompts, size=(shape.frames, shape.height, shape.width), seed=seed, batch=32):
            made.append(frames)
    verdicts = judge(made, statements, world)
    truth = judge(real, statements, world)
    for index, (frames, prompt) in enumerate(zip(made, prompts, strict=True)):
        facts = pipeline.provenance(prompt=prompt, seed=seed, index=index)
        write_clip(out / "samples" / f"{index:03d}.mp4", frames, data.fps, facts)

    generated, oracle = scores(verdicts), scores(truth)
    metrics = {
        "caption_adherence": dict(generated.share),
        "all_statements": generated.all,
        "oracle_on_real_clips": dict(oracle.share),
        "statements": dict(generated.count),
        "prompts": generated.clips,
        "vae_psnr": pipeline.reconstruction_psnr(real),
        "weights": pipeline.weights,
        "provenance": pipeline.provenance(seed=seed, data=str(dataset)),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    _report(out, pipeline, metrics, generated, oracle, world, list(zip(prompts, verdicts, strict=True)))
    return metrics


def _world(info: dict[str, Any], dataset: Path) -> "World":
    from videodit.evals.toyworld import World

    if not info.get("world"):
        raise ValueError(f"{dataset} is no toyworld data set, and only toyworld captions can be checked by the oracle")
    return World(**info["world"])


def _report(
    out: Path,
    pipeline: "Pipeline",
    metrics: dict[str, Any],
    generated: "Scores",
    oracle: "Scores",
    world: "World",
    judged: Sequence[tuple[str, "Sequence[Verdict]"]],
) -> None:
    from videodit.evals import report

    chance = {"colour": 1 / len(world.palette), "shape": 1 / len(world.shapes), "motion": 1 / len(world.motions)}
    chance["size"] = 1 / len(world.sizes)
    data = report.ReportData(
        title="Text to video in a toy world",
        summary=f"{generated.clips} held-out prompts, sampled with the {pipeline.weights} weights of step "
        f"{pipeline.step}. The oracle reads each clip and says which statements of its prompt hold.",
        figures=[
            report.KeyFigure("VAE reconstruction of held-out clips", metrics["vae_psnr"], "dB", at_least=28.0),
            report.KeyFigure("Clips of which every statement holds", generated.all),
        ],
        adherence=[
            report.Adherence(kind, share, oracle.share.get(kind), chance.get(kind), generated.count[kind])
            for kind, share in generated.share.items()
        ],
        losses=[
            report.LossCurves("Transformer", history(pipeline.workdir)),
            report.LossCurves("Autoencoder", history(Path(pipeline.run.vae)), heldout="eval/l1"),
        ],
        clips=[
            report.Clip(prompt, (out / "samples" / f"{index:03d}.mp4").read_bytes(), verdicts=verdicts)
            for index, (prompt, verdicts) in enumerate(judged[:SHOWN])
        ],
        provenance=metrics["provenance"],
    )
    report.write_report(out / "report.html", data)


def history(workdir: Path) -> list[dict[str, Any]]:
    """The metric records of a run."""
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
