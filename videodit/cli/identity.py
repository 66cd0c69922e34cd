"""What tells networks and their weights apart: what a cache says that it was made by, and a run asks for."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from videodit_data.formats import open_dataset
from videodit_data.tokenizer import Tokenizer

from videodit import provenance
from videodit.train.config import TextModel
from videodit.train.config_io import Held, to_json
from videodit.train.state import dotted, split

MADE = {"vae": ("latents", "autoencoder", "clips"), "text": ("embeddings", "text encoder", "captions")}


def identity_of(model: nnx.Module, run: Held, step: int) -> dict[str, Any]:
    """What tells a network and its weights from any other, in plain JSON."""
    digest = hashlib.sha256()
    for path, x in jax.tree.leaves_with_path(list(split(model)[1:])):
        digest.update(dotted(path).encode())
        digest.update(np.ascontiguousarray(jax.device_get(x)).reshape(-1).view(np.uint8))  # no copy
    return {"config": provenance.fingerprint(to_json(run)), "step": step, "weights": digest.hexdigest()}


def text_identity(model: nnx.Module, held: TextModel, step: int, tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """The same of a text encoder, the tokens that it is given, and how many.

    In which type it computes, and what it keeps for a backward pass, does not count.
    """
    plain = dataclasses.replace(held, model=dataclasses.replace(held.model, dtype="float32", remat="none"))
    return identity_of(model, plain, step) | {
        "tokenizer": hashlib.sha256(tokenizer.model).hexdigest(),
        "length": length,
    }


def check(data_set: str, part: str, made_by: Mapping[str, Any], workdir: str) -> None:
    """That what a data set holds of a part (`MADE`) is made by what a run names.

    Raises:
        ValueError: when it is not, naming what differs.
    """
    told = open_dataset(data_set).manifest.info.get(part) or {}
    if told != made_by:
        what, maker, source = MADE[part]
        differ = ", ".join(sorted(key for key in {*made_by, *told} if told.get(key) != made_by.get(key)))
        raise ValueError(
            f"the {what} of {data_set} were not made by the {maker} in {workdir} ({differ} differ): encode the "
            f"{source} again, or name the {maker} that made them"
        )
