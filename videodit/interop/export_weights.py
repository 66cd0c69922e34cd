"""Export a network of a run's directory as safetensors, as the reference implementations read them."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import Weights
from videodit.checkpoint.restore import restore_over_devices
from videodit.checkpoint.workdir import read_config
from videodit.interop import mapping, safetensors
from videodit.interop.directories import check_new, create_directory
from videodit.interop.parts import LAYOUTS
from videodit.nn.lora import merge
from videodit.nn.state import Arrays, split_model


def export_weights(
    workdir: Path,
    out: Path,
    *,
    weights: Weights = "ema",
    step: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> list[Path]:
    """Export a network as safetensors and config.json in diffusers' layout, complete or not at all; returns the files.

    Raises:
        ValueError: when the directory holds no network, the layout cannot express its options, or `out` exists.
    """
    check_new(out)
    config = read_config(workdir)
    layout = LAYOUTS[config.kind]
    statistics = latent_stats.read(workdir) if config.kind == "vae" else ()
    facts, rules = layout.facts(config.model, *statistics), layout.module.rules(config.model)
    stored = np.dtype("float32") if dtype == "float32" else safetensors.DTYPES["BF16"]
    with create_directory(out) as folder:
        params = _restore_params(config.kind, workdir, weights, step)
        files = safetensors.write(folder, layout.stem, mapping.outputs(rules, params, stored))
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return [out / file.name for file in files]


def _restore_params(kind: str, workdir: Path, weights: Weights, step: int | None) -> Arrays:
    """Restore the parameters of the network that a directory is named after, over the devices, adapters merged."""
    model = restore_over_devices(workdir, weights, step)
    if kind == "dit":  # beside its text encoder, if that was trained along
        model = model.dit
        merge(model)
    return split_model(model)[1]
