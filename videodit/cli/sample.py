"""`videodit sample`: clips for prompts."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from videodit.cli import expansion, processes

if TYPE_CHECKING:
    from videodit.cli.images import Images
    from videodit.cli.pipeline import Pipeline
    from videodit.diffusion.sample import SamplerConfig

EXAMPLES = """examples:
  videodit sample --checkpoint runs/quickstart/dit --prompt "a small red circle moves left" --out red.mp4
  videodit sample --checkpoint runs/quickstart/dit --prompts prompts.txt --out samples/ --guidance 3 --seed 7
  videodit sample --checkpoint runs/quickstart/dit --prompt "a blue star bounces" --steps 50 --out star.gif
  videodit sample --checkpoint ckpt/wan --prompt "a cat surfs" --out cat.mp4 --mesh context=16 --distributed
  videodit sample --checkpoint ckpt/wan --prompt "a cat surfs" --out cat.mp4 --expand http://localhost:8000 \\
    --expand-model NAME
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "sample",
        parents=[common],
        help="generate clips from text",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="workdir of a transformer")
    parser.add_argument("--step", type=int, help="checkpoint to take; the last one if not given")
    parser.add_argument("--weights", choices=("ema", "params"), default="ema", help="averaged weights or the last ones")
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", help="what to show")
    prompts.add_argument("--prompts", type=Path, help="file with one prompt a line; --out is a folder then")
    parser.add_argument("--negative-prompt", default="", help="what to lead away from; nothing if not given")
    parser.add_argument("--image", type=Path, help="first frame, of models that take one")
    parser.add_argument("--last-image", type=Path, help="last frame, of models that take one")
    parser.add_argument("--out", type=Path, required=True, help=".mp4, .gif, .png (contact sheet), or a folder")
    for name, kind in (("frames", int), ("height", int), ("width", int), ("fps", float)):
        parser.add_argument(f"--{name}", type=kind, help="as in training if not given")
    parser.add_argument("--steps", type=int, help="solver steps; as configured if not given")
    parser.add_argument("--solver", help="unipc, unipc_bh1, dpmpp, euler or heun; as configured if not given")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance; as configured if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8, help="clips generated at a time")
    parser.add_argument(
        "--tile", type=int, metavar="N", help="decode frames in tiles of N latents a side, in less memory"
    )
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="over which devices: data, fsdp, context, tensor")
    expansion.add_options(parser)
    processes.add_options(parser)
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit.cli.outputs import check_suffix, write_clip
    from videodit.cli.pipeline import Pipeline
    from videodit.cli.plan import parse_mesh
    from videodit.parallel.distributed import is_first

    prompts, paths = _prompts(args)
    for path in paths:
        check_suffix(path)
    images = _images(args)
    mesh = None if args.mesh is None else parse_mesh(args.mesh)
    if processes.join_if_asked(args) and mesh is None:
        raise ValueError("several processes share the devices of one mesh: give --mesh")
    texts, expanded = _expanded(args, prompts, console)
    pipeline = Pipeline.load(args.checkpoint, weights=args.weights, step=args.step, mesh=mesh)
    sampler = sampler_of(args, pipeline)
    data = pipeline.run.data
    size = tuple(getattr(args, name) or getattr(data, name) for name in ("frames", "height", "width"))
    fps = args.fps or data.fps
    given = {"seed": args.seed, "batch": args.batch, "negative": args.negative_prompt, "images": images}
    given["tile"] = args.tile
    clips = pipeline.generate(texts, size=size, fps=fps, sampler=sampler, **given)
    told = {"negative_prompt": args.negative_prompt} if args.negative_prompt else {}
    told |= {name: str(path) for name, path in (("image", args.image), ("last_image", args.last_image)) if path}
    for index, (path, prompt, frames) in enumerate(zip(paths, prompts, clips, strict=True)):
        if not is_first():
            continue
        facts = pipeline.provenance(
            prompt=prompt, seed=args.seed, index=index, sampler=dataclasses.asdict(sampler), **told, **expanded[index]
        )
        write_clip(path, frames, fps, facts)
        console.print(f"{path}: {prompt}", highlight=False, markup=False)
    return 0


def _expanded(args: argparse.Namespace, prompts: list[str], console: Console) -> tuple[list[str], list[dict[str, str]]]:
    """What the model is told for each prompt, and what the sample's facts say of it beside the prompt.

    One process asks for all: no two answers need be alike.
    """
    from videodit.parallel.distributed import first_writes, on_first

    told: list[dict[str, str]] = []

    def ask() -> None:
        for found in expansion.expand_prompts(args, prompts, console):
            told.append({} if found is None else {"expanded_prompt": found.expanded, "expanded_by": found.source})

    on_first(ask)
    told = json.loads(first_writes(json.dumps(told)))
    return [facts.get("expanded_prompt", prompt) for facts, prompt in zip(told, prompts, strict=True)], told


def _images(args: argparse.Namespace) -> "Images | None":
    from videodit.cli.images import Images, Picture

    if args.image is None:
        if args.last_image is not None:
            raise ValueError("--last-image goes with --image, the first frame")
        return None
    return Images(Picture.open(args.image), args.last_image and Picture.open(args.last_image))


def sampler_of(args: argparse.Namespace, pipeline: "Pipeline") -> "SamplerConfig":
    """The run's sampler with what the command line changes."""
    names = ("steps", "solver", "guidance")
    changed = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return dataclasses.replace(pipeline.run.sampler, **changed)


def _prompts(args: argparse.Namespace) -> tuple[list[str], list[Path]]:
    if args.prompt is not None:
        return [args.prompt], [args.out]
    prompts = [line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{args.prompts} holds no prompt: write one a line")
    return prompts, [args.out / f"{index:04d}.mp4" for index in range(len(prompts))]
