"""`videodit import` and `videodit export`: open weights into a run's directory, and back to safetensors files."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from videodit.cli import checkpoint_options

IMPORT_EXAMPLES = """examples:
  videodit import --kind wan2.1-t2v-1.3b --from Wan2.1-T2V-1.3B-Diffusers --to ckpt/wan-1.3b
  videodit import --kind wan2.1-t2v-14b --from Wan2.1-T2V-14B --text-encoder umt5 --vae vae --to ckpt/wan-14b
  videodit import --kind umt5-xxl --from umt5-xxl/model.safetensors.index.json --to ckpt/umt5 --dtype bfloat16
"""
EXPORT_EXAMPLES = """examples:
  videodit export --checkpoint runs/wan-1.3b --to out            (for diffusers)
  videodit export --checkpoint ckpt/wan-1.3b/vae --to out/vae --dtype bfloat16
"""
PARTS = ("transformer_2", "vae", "text_encoder", "image_encoder")
DTYPES = ("float32", "bfloat16")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    from videodit.interop.kinds import KINDS

    parser = commands.add_parser(
        "import",
        parents=[common],
        help="import the weights of Wan, T5 or CLIP",
        description="Read safetensors, in diffusers' layout or of the original release, into a run's directory.",
        epilog=IMPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the release's folder, or a file")
    parser.add_argument("--to", type=Path, required=True, help="new directory")
    for name in PARTS:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=Path, help="its path, if not in the release's folder")
    parser.add_argument("--tokenizer", type=Path, help="sentencepiece model, if not in the release's folder")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="stored type (default: %(default)s)")
    parser.set_defaults(command=run_import)

    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write weights in the layout of diffusers",
        description="Write the weights of a run's directory as safetensors and config.json in diffusers' layout.",
        epilog=EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    checkpoint_options.add_options(parser, "the directory of a run or of one network")
    parser.add_argument("--to", type=Path, required=True, help="new folder")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="written type (default: %(default)s)")
    parser.set_defaults(command=run_export)


def run_import(args: argparse.Namespace, console: Console) -> int:
    from videodit.interop.import_release import Release, import_release

    def message(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    parts = {name: getattr(args, name) for name in PARTS if getattr(args, name)}
    release = Release(args.kind, args.source, parts, args.tokenizer)
    missing = import_release(release, args.to, dtype=args.dtype, message=message)
    if missing:
        message(f"without {' and '.join(missing)}: it can be trained on, not sampled from")
    message(f"{args.kind}: {args.to}")
    return 0


def run_export(args: argparse.Namespace, console: Console) -> int:
    from videodit.interop.export_weights import export_weights

    files = export_weights(
        args.checkpoint, args.to, weights=args.weights, step=args.step, dtype=args.dtype, strict=args.strict
    )
    for file in files:
        console.print(str(file), highlight=False, markup=False)
    return 0
