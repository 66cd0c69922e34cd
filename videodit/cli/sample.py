"""`videodit sample`: clips for prompts."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from videodit.cli import expansion, processes, sampler_options
from videodit.cli.number_options import FPS, SIZE

EXAMPLES = """examples:
  videodit sample --checkpoint runs/quickstart/dit --prompt "a small red circle moves left" --out red.mp4
  videodit sample --checkpoint runs/quickstart/dit --prompts prompts.txt --out samples/ --guidance 3 --seed 7
  videodit sample --checkpoint runs/quickstart/dit --prompt "a blue square bounces" --steps 50 --out square.gif
  videodit sample --checkpoint ckpt/wan --prompt "a cat surfs" --out cat.mp4 --mesh context=16 --distributed
  videodit sample --checkpoint ckpt/wan --prompt "a cat surfs" --out cat.mp4 --expand http://localhost:8000 \\
    --expand-model NAME
"""
MOST_PROMPTS = 2**24  # bytes of their file


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "sample",
        parents=[common],
        help="generate clips from text",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sampler_options.add_options(parser)
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", help="text of the clip")
    prompts.add_argument("--prompts", type=Path, help="file or pipe with a prompt per line; --out is a folder then")
    parser.add_argument("--negative-prompt", default="", help="guide away from this text (default: empty)")
    parser.add_argument("--image", type=Path, help="first frame, of models that take one")
    parser.add_argument("--last-image", type=Path, help="last frame, of models that take one")
    parser.add_argument("--out", type=Path, required=True, help=".mp4, .gif, .png (contact sheet), or a folder")
    for name, kind in (("frames", SIZE), ("height", SIZE), ("width", SIZE), ("fps", FPS)):
        parser.add_argument(f"--{name}", type=kind, help="(default: as in training)")
    parser.add_argument("--batch", type=SIZE, default=8, help="clips per batch (default: %(default)s)")
    parser.add_argument(
        "--tile", type=SIZE, metavar="N", help="decode frames in tiles of N x N latents, to save memory"
    )
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="mesh of devices: data, fsdp, context, tensor")
    expansion.add_options(parser)
    processes.add_options(parser)
    parser.set_defaults(command=command)


def command(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.storage.whole_file import check_creatable

    from videodit.inference.api import load_text_to_video
    from videodit.inference.clip_files import check_suffix
    from videodit.inference.images import ConditionImages
    from videodit.parallel.distributed import guard_peer_failures, is_main_process, on_main_process
    from videodit.parallel.mesh import parse_mesh

    prompts, paths = _read_prompts(args)
    conditions = sampler_options.parse_conditions(args)
    sampler_options.check_sampler(args)
    for path in paths:
        check_suffix(path)
    ConditionImages.open(args.image, args.last_image)
    mesh = None if args.mesh is None else parse_mesh(args.mesh)
    if processes.join_if_requested(args) and mesh is None:
        raise ValueError("several processes need a mesh over their devices: pass --mesh")
    on_main_process(lambda: [check_creatable(path, is_file=True) for path in paths])
    texts = expansion.expand(args, prompts, console)
    videos = load_text_to_video(
        args.checkpoint, step=args.step, weights=args.weights, mesh=mesh, strict=args.strict
    ).iterate(
        prompts,
        texts=texts,
        frames=args.frames,
        height=args.height,
        width=args.width,
        fps=args.fps,
        steps=args.steps,
        solver=args.solver,
        guidance=args.guidance,
        negative_prompt=args.negative_prompt,
        image=args.image,
        last_image=args.last_image,
        conditions=conditions,
        seed=args.seed,
        batch=args.batch,
        tile=args.tile,
    )
    with guard_peer_failures():
        for path, prompt, video in zip(paths, prompts, videos, strict=True):
            if is_main_process():
                video.save(path)
                console.print(f"{path}: {prompt}", highlight=False, markup=False)
    return 0


def _read_prompts(args: argparse.Namespace) -> tuple[list[str], list[Path]]:
    if args.prompt is not None:
        return [args.prompt], [args.out]
    from videodit_data.boundary.input_files import open_stream, read_text

    try:
        with open_stream(args.prompts) as file:
            prompts = [line.strip() for line in read_text(file, MOST_PROMPTS).splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"--prompts {args.prompts} cannot be read: {error}") from error
    if not prompts:
        raise ValueError(f"{args.prompts} has no prompts: write one per line")
    return prompts, [args.out / f"{index:04d}.mp4" for index in range(len(prompts))]
