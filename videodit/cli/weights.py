"""`videodit import` and `videodit export`: open weights into a run's directory, and ours back into open files."""

import argparse
import difflib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from videodit.interop.kinds import Kind
    from videodit.interop.parts import Part
    from videodit.train.config import DiTRun
    from videodit.train.config_io import Held

IMPORT_EXAMPLES = """examples:
  videodit import --kind wan2.1-t2v-1.3b --from Wan2.1-T2V-1.3B-Diffusers --to ckpt/wan-1.3b
  videodit import --kind wan2.1-t2v-14b --from Wan2.1-T2V-14B --text-encoder umt5 --vae vae --to ckpt/wan-14b
  videodit import --kind umt5-xxl --from umt5-xxl/model.safetensors.index.json --to ckpt/umt5 --dtype bfloat16
"""
EXPORT_EXAMPLES = """examples:
  videodit export --checkpoint runs/wan-1.3b --to out            (out/transformer, as diffusers reads it)
  videodit export --checkpoint ckpt/wan-1.3b/vae --to out/vae --dtype bfloat16
"""
FOLDERS = {"vae": "vae", "text_encoder": "text", "image_encoder": "image", "transformer_2": "expert"}
"""Of the run's directory, where its other networks are."""
TRANSFORMERS = ("transformer", "transformer_2")
PLACES = ("transformer_2", "vae", "text_encoder", "image_encoder")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    from videodit.interop.kinds import KINDS

    parser = commands.add_parser(
        "import",
        parents=[common],
        help="open the weights of Wan, T5 or CLIP",
        description="Read safetensors, in diffusers' layout or of the original release, into a run's directory.",
        epilog=IMPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the release's folder, or a file")
    parser.add_argument("--to", type=Path, required=True, help="directory to make")
    for name in PLACES:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=Path, help="where this is, if not in the release's folder"
        )
    parser.add_argument("--tokenizer", type=Path, help="sentencepiece model, if not in the release's folder")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to hold the weights in")
    parser.set_defaults(command=import_command)

    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write weights as the reference reads them",
        description="Write the weights of a run's directory as safetensors and config.json in diffusers' layout.",
        epilog=EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="the directory of a run or of one network")
    parser.add_argument("--to", type=Path, required=True, help="folder to make")
    parser.add_argument("--step", type=int, help="checkpoint to take; the last one if not given")
    parser.add_argument("--weights", choices=("ema", "params"), default="ema", help="averaged weights or the last ones")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to write")
    parser.set_defaults(command=export_command)


def import_command(args: argparse.Namespace, console: Console) -> int:
    from videodit.interop.kinds import KINDS
    from videodit.interop.parts import find

    if args.kind not in KINDS:
        near = difflib.get_close_matches(args.kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(KINDS)}"
        raise ValueError(f"unknown kind '{args.kind}': {hint}")
    _must_be_new(args.to)
    kind = KINDS[args.kind]
    parts = find(kind, args.source, {name: getattr(args, name) for name in PLACES if getattr(args, name)})
    with _made_whole(args.to) as folder:
        _write(args, kind, parts, folder, console)
    missing = [name.replace("_", " ") for name in kind.parts if name not in parts]
    if "text_encoder" in parts and _tokenizer(args) is None:
        missing.append("tokenizer (spiece.model, which --tokenizer names)")
    if missing and kind.main == "transformer":
        console.print(f"without {' and '.join(missing)}: it can be trained on, not sampled from", highlight=False)
    console.print(f"{args.kind}: {args.to}", highlight=False, markup=False)
    return 0


def _write(args: argparse.Namespace, kind: "Kind", parts: "Mapping[str, Part]", out: Path, console: Console) -> None:
    """Every network into its place under `out`, one after the other."""
    from videodit.train.workdir import describe

    tokenizer = _tokenizer(args)
    if tokenizer is not None and "text_encoder" in kind.parts:
        shutil.copy(tokenizer, out / "tokenizer.model")
    for name, part in parts.items():
        console.print(f"{part.what}: {len(part.weights)} tensors", highlight=False, markup=False)
        folder = out if name == kind.main else out / FOLDERS[name]
        folder.mkdir(exist_ok=True)
        _store(part, folder / "checkpoints", args.dtype)
        source = {"kind": args.kind, "source": str(part.files[0].parent), "licence": kind.licence}
        describe(folder, _held(args, kind, part, parts), **source, sha256=_digests(part))
        if name == "vae":
            _statistics(part, folder)


def _store(part: "Part", directory: Path, dtype: str) -> None:
    """Reads a network over the devices, and writes it as a checkpoint of step 0."""
    import jax
    import jax.numpy as jnp

    from videodit.train.checkpoint import save_params

    def typed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype), sharding=x.sharding)

    params, buffers = _over_devices(part.make)
    loaded = part.load(jax.tree.map(typed, params))
    buffers = {name: jax.device_put(part.buffers[name], like.sharding) for name, like in buffers.items()}
    save_params(directory, {"dit": loaded} if part.name in TRANSFORMERS else loaded, buffers)


def _over_devices(make: Any) -> tuple[Any, Any]:
    """The shapes of a network's parameters and other variables, over as many devices as divide it."""
    from videodit.cli.models import most_devices
    from videodit.train.state import abstract_model, shapes_of

    model = shapes_of(make)
    return abstract_model(model, most_devices(model))[1:]


def _statistics(part: "Part", folder: Path) -> None:
    from videodit.train import latents

    latents.write(folder, 0, part.buffers["latent_mean"], part.buffers["latent_std"])


def _digests(part: "Part") -> dict[str, str]:
    from videodit.interop.safetensors import sha256

    return {file.name: sha256(file) for file in part.files}


def _tokenizer(args: argparse.Namespace) -> Path | None:
    """The sentencepiece model given, or that of the release's folder, or of the encoder's."""
    source = args.source if args.source.is_dir() else args.source.parent
    places = [source / folder / "spiece.model" for folder in ("tokenizer", "google/umt5-xxl", ".", "../tokenizer")]
    found = args.tokenizer or next((place for place in places if place.is_file()), None)
    if found is not None and not found.is_file():
        raise ValueError(f"there is no file {found}")
    return found


def _held(args: argparse.Namespace, kind: "Kind", part: "Part", parts: "Mapping[str, Part]") -> "Held":
    """The configuration of the directory that a network goes to."""
    from videodit.train.config import DataConfig, TextModel, VAERun, VisionModel

    frames, height, width, fps = kind.clip
    data = DataConfig(
        path="data/train", frames=frames, height=height, width=width, fps=fps, batch_size=1, text_length=512
    )
    if part.name == "vae":
        return VAERun(steps=1, data=data, model=part.cfg, ema=0.0)
    if part.name == "text_encoder":
        return TextModel(model=part.cfg)
    if part.name == "image_encoder":
        return VisionModel(model=part.cfg)
    return _run(args, kind, part, parts, data)


def _run(args: argparse.Namespace, kind: "Kind", part: "Part", parts: "Mapping[str, Part]", data: Any) -> "DiTRun":
    import dataclasses

    from videodit.diffusion.timesteps import TimestepConfig
    from videodit.models.text import TextConfig
    from videodit.train.config import DiTRun

    text = parts["text_encoder"].cfg if "text_encoder" in parts else None
    width = part.cfg.text_width
    return DiTRun(
        steps=1,
        data=data,
        ema=0.0,
        model=dataclasses.replace(part.cfg, fps_reference=data.fps),
        text=text or TextConfig(vocab_size=256384, width=width, depth=24, num_heads=64, head_dim=64, mlp_width=10240),
        tokenizer="tokenizer.model",
        vae=FOLDERS["vae"],
        text_encoder=FOLDERS["text_encoder"],
        image_encoder=FOLDERS["image_encoder"] if "image_encoder" in parts else None,
        expert=FOLDERS["transformer_2"] if "transformer_2" in parts else None,
        image_first=kind.image_first,
        timesteps=TimestepConfig(shift=kind.shift),
        sampler=_sampler(args, kind),
    )


def _sampler(args: argparse.Namespace, kind: "Kind") -> Any:
    """That of the scheduler's configuration, or the one that the kind is sampled with: UniPC in a thousand parts."""
    import dataclasses
    import json

    from videodit.interop import schedulers

    path = args.source / "scheduler" / "scheduler_config.json"
    default = {"_class_name": schedulers.UNIPC, "flow_shift": kind.shift}
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default
    sampler = schedulers.sampler(facts, kind.steps, kind.guidance)
    index = args.source / "model_index.json"
    told = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    boundary = told.get("boundary_ratio") or kind.boundary or 0.0
    return dataclasses.replace(sampler, boundary=boundary, guidance_below=kind.guidance_below)


def export_command(args: argparse.Namespace, console: Console) -> int:
    import json

    import numpy as np

    from videodit.interop import mapping, safetensors
    from videodit.interop.parts import LAYOUTS
    from videodit.train import latents
    from videodit.train.workdir import read_run

    _must_be_new(args.to)
    held = read_run(args.checkpoint)
    layout = LAYOUTS[held.kind]
    statistics = latents.read(args.checkpoint) if held.kind == "vae" else ()
    facts, rules = layout.facts(held.model, *statistics), layout.module.rules(held.model)
    params = _restored(held, args)
    dtype = np.dtype("float32") if args.dtype == "float32" else safetensors.DTYPES["BF16"]
    with _made_whole(args.to) as folder:
        files = safetensors.write(folder, layout.stem, mapping.outputs(rules, params, dtype))
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for file in files:
        console.print(str(args.to / file.name), highlight=False, markup=False)
    return 0


def _restored(held: "Held", args: argparse.Namespace) -> Any:
    """The parameters of the network that a directory is named after, over the devices, adapters merged."""
    from videodit.cli.models import open_model
    from videodit.nn.lora import merge
    from videodit.train.state import split

    if held.kind == "dit":  # beside its text encoder, if that was trained along
        model = open_model(args.checkpoint, args.weights, args.step).dit
        merge(model)
        return split(model)[1]
    return split(open_model(args.checkpoint, args.weights, args.step))[1]


def _must_be_new(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists: --to is a directory to make")


@contextmanager
def _made_whole(path: Path) -> Iterator[Path]:
    """A directory to fill, which gets its name when it is whole, and is gone if it never is."""
    partial = path.with_name(path.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rmdir()
    os.replace(partial, path)
