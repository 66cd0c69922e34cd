"""Captions encoded once by a frozen text encoder, each distinct one, over the devices of a process."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree
from videodit_data.tokenizer import Tokenizer

from videodit.checkpoint.identity import text_encoder_identity
from videodit.checkpoint.restore import load_text_encoder_on_host
from videodit.models.text import TextEncoder
from videodit.nn.state import abstract_arrays, shardings_of, split_model
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import sharding_for
from videodit.shapes import TextIds, TextMask

CAPTIONS_PER_DEVICE = 8  # at a time, so that what is computed is the same for any number of devices


@dataclass(frozen=True)
class TextSource:
    """A text encoder's directory, its tokenizer's file, and the tokens that captions are padded or cut to."""

    workdir: Path
    tokenizer: Path | None = None
    length: int = 512

    def open(self) -> "CaptionEncoder":
        """Open the encoder; ValueError when there is no such encoder or tokenizer, or they do not fit."""
        candidates = self.workdir / "tokenizer.model", self.workdir.parent / "tokenizer.model"
        found = self.tokenizer or next((path for path in candidates if path.is_file()), candidates[0])
        model, config, step = load_text_encoder_on_host(self.workdir)
        tokenizer = Tokenizer(found)
        if tokenizer.size > config.model.vocab_size:
            raise ValueError(
                f"the text encoder of {self.workdir} has {config.model.vocab_size} token ids, but {found} makes "
                f"{tokenizer.size}"
            )
        identity = text_encoder_identity(model, config, step, tokenizer.model, self.length)
        return CaptionEncoder(model, tokenizer, self.length, identity)


class CaptionEncoder:
    """Encodes captions a full batch at a time. The encoder's weights are on the devices only while it does so.

    `identity` is what the embeddings depend on, as a manifest records it.
    """

    def __init__(self, model: TextEncoder, tokenizer: Tokenizer, length: int, identity: dict[str, Any]):
        self._model, self._tokenizer, self._length, self.identity = model, tokenizer, length, identity
        self._mesh = _mesh(model)

    def __call__(self, captions: Sequence[str]) -> Iterator[Float[np.ndarray, "s E"]]:
        """Yield for each caption, in order, the embeddings of the tokens that it has."""
        graphdef, *variables = split_model(self._model)
        shardings = shardings_of(list(abstract_arrays(self._model, self._mesh)[1:]))
        with jax.set_mesh(self._mesh):
            state = jax.device_put(variables, shardings)
        size = CAPTIONS_PER_DEVICE * self._mesh.size
        previous = None
        for start in range(0, len(captions), size):
            chunk = captions[start : start + size]
            ids_BS, mask_BS = self._tokenizer.encode([*chunk, *[""] * (size - len(chunk))], self._length)
            current = self._encode(graphdef, state, ids_BS, mask_BS), mask_BS, len(chunk)
            if previous is not None:
                yield from _unpad(*previous)
            previous = current
        if previous is not None:
            yield from _unpad(*previous)

    def _encode(self, graphdef: nnx.GraphDef, state: PyTree, ids_BS: np.ndarray, mask_BS: np.ndarray) -> Array:
        with jax.set_mesh(self._mesh):
            rows = sharding_for(("batch",), ids_BS.shape[:1], self._mesh)
            return _encode(graphdef, state, *jax.device_put((ids_BS, mask_BS), rows))


def _unpad(embeddings: Array, mask_BS: np.ndarray, count: int) -> Iterator[Float[np.ndarray, "s E"]]:
    embedded_BSE = np.asarray(jax.device_get(embeddings), np.float32)
    yield from (embedded_BSE[row, mask_BS[row]] for row in range(count))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, ids_BS: TextIds, mask_BS: TextMask) -> Float[Array, "B S E"]:
    return nnx.merge(graphdef, *state)(ids_BS, mask_BS)


def _mesh(model: TextEncoder) -> Mesh:
    """Return the mesh of this process's devices, which share the weights where these divide, or have a copy each."""
    devices = jax.local_devices()
    shared = make_mesh(MeshConfig(data=1, fsdp=-1), devices)
    try:
        abstract_arrays(model, shared)
    except ValueError:
        return make_mesh(MeshConfig(), devices)
    return shared
