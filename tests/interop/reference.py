"""Reference models and their outputs, from the cases shared by the project's checkouts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array

from videodit.interop import mapping
from videodit.interop.mapping import Rule
from videodit.interop.safetensors import Tensor, Weights
from videodit.nn.state import split_model

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens"


@dataclass(frozen=True)
class Golden:
    """A reference case: the fields of its `config.json`, its weights, and inputs and outputs by name."""

    folder: Path
    fields: dict[str, Any]
    weights: dict[str, Tensor]
    io: dict[str, np.ndarray]

    def channels_last(self, name: str) -> Array:
        """Return an array of the case with its channels last."""
        return jnp.moveaxis(jnp.asarray(self.io[name]), 1, -1)


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """Return a function that reads a reference case by name."""

    def read(case: str) -> Golden:
        folder = GOLDENS / case
        if not folder.is_dir():
            pytest.skip(f"the reference case {folder} is missing")
        weights = folder / "weights.safetensors"
        io = {name: np.asarray(tensor.read()) for name, tensor in Weights(folder / "io.safetensors").items()}
        fields = json.loads((folder / "config.json").read_text())
        return Golden(folder, fields, dict(Weights(weights)) if weights.is_file() else {}, io)

    return read


def load_model(
    make: Callable[[], nnx.Module],
    rules: list[Rule],
    weights: dict[str, Tensor],
    buffers: dict[str, Array] | None = None,
) -> nnx.Module:
    """Return the model with these weights, after checking that exporting gives them unchanged."""
    graph, params, _ = split_model(nnx.eval_shape(make))
    params = mapping.load(rules, params, weights, "the case")
    back = mapping.export(rules, params)
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        np.testing.assert_array_equal(back[name].compute(), tensor.read())
    return nnx.merge(graph, params, buffers or {})


def relative_error(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))
