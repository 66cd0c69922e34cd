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
from videodit.interop.reference_layouts import REFERENCE_LAYOUTS
from videodit.nn.lora import merge
from videodit.nn.state import Arrays, split_model


def export_weights(
    workdir: Path,
    out: Path,
    *,
    weights: Weights = "ema",
    step: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    strict: bool = False,
) -> list[Path]:
    """Export a network as safetensors and config.json in diffusers' layout; on failure nothing is left at `out`.

    Args:
        workdir: of a run, or of a network of an imported release.
        strict: refuse to take an earlier checkpoint where the last one is damaged.

    Returns:
        The files.

    Raises:
        ValueError: if the directory has no network, the layout cannot express its options, or `out` exists.
    """
    check_new(out)
    config = read_config(workdir)
    layout = REFERENCE_LAYOUTS[config.kind]
    statistics = latent_stats.read(workdir) if config.kind == "vae" else ()
    fields = layout.export_config(config.model, *statistics)
    rules = layout.module.build_rules(config.model)
    file_dtype = np.dtype("float32") if dtype == "float32" else safetensors.DTYPES["BF16"]
    with create_directory(out) as folder:
        params = _restore_params(config.kind, workdir, weights, step, strict)
        files = safetensors.write(folder, layout.stem, mapping.export(rules, params, file_dtype))
        (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return [out / file.name for file in files]


def _restore_params(kind: str, workdir: Path, weights: Weights, step: int | None, strict: bool) -> Arrays:
    """Restore the parameters of a directory's main network, sharded over the devices, with adapters merged."""
    model = restore_over_devices(workdir, weights, step, strict=strict)
    if kind == "dit":  # the checkpoint also has the text encoder, if that was trained with it
        model = model.dit
        merge(model)
    return split_model(model)[1]
