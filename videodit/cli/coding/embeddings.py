"""Captions coded once by a text encoder that stays as it is, each distinct one, over the devices of a process."""

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

from videodit.cli.identity import text_identity
from videodit.cli.models import text_on_host
from videodit.models.text import TextEncoder
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import sharding_for
from videodit.shapes import TextIds, TextMask
from videodit.train.state import abstract_model, shardings_of, split

CAPTIONS_A_DEVICE = 8  # at a time, so that what is computed is the same for any number of devices


@dataclass(frozen=True)
class TextSource:
    """A text encoder's directory, its tokenizer's file, and the tokens that captions are padded or cut to."""

    workdir: Path
    tokenizer: Path | None = None
    length: int = 512

    def open(self) -> "TextCoder":
        """ValueError when there is no such encoder or tokenizer, or they do not fit."""
        places = self.workdir / "tokenizer.model", self.workdir.parent / "tokenizer.model"
        found = self.tokenizer or next((place for place in places if place.is_file()), places[0])
        model, held, step = text_on_host(self.workdir)
        tokenizer = Tokenizer(found)
        if tokenizer.size > held.model.vocab_size:
            raise ValueError(
                f"the text encoder of {self.workdir} knows {held.model.vocab_size} token ids, but {found} makes "
                f"{tokenizer.size}"
            )
        identity = text_identity(model, held, step, tokenizer, self.length)
        return TextCoder(model, tokenizer, self.length, identity)


class TextCoder:
    """Codes captions a full batch at a time. The encoder's weights are on the devices only while it does so.

    `identity` is what the embeddings depend on, as a manifest tells it.
    """

    def __init__(self, model: TextEncoder, tokenizer: Tokenizer, length: int, identity: dict[str, Any]):
        self._model, self._tokenizer, self._length, self.identity = model, tokenizer, length, identity
        self._mesh = _mesh(model)

    def __call__(self, captions: Sequence[str]) -> Iterator[Float[np.ndarray, "s E"]]:
        """For each caption, in order, the embeddings of the tokens that it has."""
        graphdef, *variables = split(self._model)
        places = shardings_of(list(abstract_model(self._model, self._mesh)[1:]))
        with jax.set_mesh(self._mesh):
            state = jax.device_put(variables, places)
        size = CAPTIONS_A_DEVICE * self._mesh.size
        behind = None
        for start in range(0, len(captions), size):
            some = captions[start : start + size]
            ids_BS, mask_BS = self._tokenizer.encode([*some, *[""] * (size - len(some))], self._length)
            ahead = self._encode(graphdef, state, ids_BS, mask_BS), mask_BS, len(some)
            if behind is not None:
                yield from _rows(*behind)
            behind = ahead
        if behind is not None:
            yield from _rows(*behind)

    def _encode(self, graphdef: nnx.GraphDef, state: PyTree, ids_BS: np.ndarray, mask_BS: np.ndarray) -> Array:
        with jax.set_mesh(self._mesh):
            rows = sharding_for(("batch",), ids_BS.shape[:1], self._mesh)
            return _encode(graphdef, state, *jax.device_put((ids_BS, mask_BS), rows))


def _rows(made: Array, mask_BS: np.ndarray, count: int) -> Iterator[Float[np.ndarray, "s E"]]:
    embedded_BSE = np.asarray(jax.device_get(made), np.float32)
    yield from (embedded_BSE[row, mask_BS[row]] for row in range(count))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, ids_BS: TextIds, mask_BS: TextMask) -> Float[Array, "B S E"]:
    return nnx.merge(graphdef, *state)(ids_BS, mask_BS)


def _mesh(model: TextEncoder) -> Mesh:
    """Of this process's devices, which share the weights where these divide, or else have a copy each."""
    devices = jax.local_devices()
    shared = make_mesh(MeshConfig(data=1, fsdp=-1), devices)
    try:
        abstract_model(model, shared)
    except ValueError:
        return make_mesh(MeshConfig(), devices)
    return shared
