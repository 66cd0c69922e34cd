"""What tells networks and their weights apart, as data sets record it that they encoded."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from videodit.checkpoint.workdir import CONFIG_FILE
from videodit.config.io import to_json
from videodit.config.run import ImportedTextEncoder
from videodit.nn.state import dotted_path, split_model
from videodit.provenance import fingerprint


def vae_identity(workdir: Path, vae: nnx.Module, step: int) -> dict[str, Any]:
    """Return what tells an autoencoder and its weights from any other, in plain JSON."""
    return _identity((workdir / CONFIG_FILE).read_text(encoding="utf-8"), vae, step)


def text_encoder_identity(
    model: nnx.Module, config: ImportedTextEncoder, step: int, tokenizer: bytes, length: int
) -> dict[str, Any]:
    """Return the same of a text encoder, its tokenizer (the bytes of its model), and the tokens of a caption.

    The type in which it computes, and what it keeps for a backward pass, do not count.
    """
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32", remat="none"))
    return _identity(to_json(plain), model, step) | {
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
        "length": length,
    }


def _identity(config: str, model: nnx.Module, step: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path, x in jax.tree.leaves_with_path(list(split_model(model)[1:])):
        digest.update(dotted_path(path).encode())
        digest.update(np.ascontiguousarray(jax.device_get(x)).reshape(-1).view(np.uint8))  # no copy
    return {"config": fingerprint(config), "step": step, "weights": digest.hexdigest()}
