"""Captions encoded by a frozen text encoder, batch by batch over the devices of a process."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from videodit.provenance import JSON
from videodit.shapes import TextIds, TextMask

CAPTIONS_PER_DEVICE = 8  # of a batch, so that results do not depend on the number of devices


@dataclass(frozen=True)
class TextSource:
    """A text encoder on disk.

    Attributes:
        workdir: its directory.
        tokenizer: its sentencepiece model; None for the one in that directory or above it.
        length: the number of tokens that captions are padded or cut to.
    """

    workdir: Path
    tokenizer: Path | None = None
    length: int = 512

    def open(self) -> "CaptionEncoder":
        """Open the encoder; ValueError if encoder or tokenizer do not exist, or do not fit together."""
        candidates = self.workdir / "tokenizer.model", self.workdir.parent / "tokenizer.model"
        path = self.tokenizer or next((path for path in candidates if path.is_file()), candidates[0])
        model, config, step = load_text_encoder_on_host(self.workdir)
        tokenizer = Tokenizer(path)
        if tokenizer.size > config.model.vocab_size:
            raise ValueError(
                f"the text encoder of {self.workdir} has {config.model.vocab_size} token ids, but {path} makes "
                f"{tokenizer.size}"
            )
        identity = text_encoder_identity(model, config, step, tokenizer.model, self.length)
        return CaptionEncoder(model, tokenizer, self.length, identity)


class CaptionEncoder:
    """Encodes captions in full batches; the encoder's weights are on the devices only during a call.

    Args:
        length: the number of tokens that captions are padded or cut to.
        identity: what embeddings depend on, as a manifest records it.
    """

    def __init__(self, model: TextEncoder, tokenizer: Tokenizer, length: int, identity: dict[str, JSON]):
        self._model, self._tokenizer, self._length, self.identity = model, tokenizer, length, identity
        self._mesh = _choose_mesh(model)

    def __call__(self, captions: Sequence[str]) -> Iterator[Float[np.ndarray, "s E"]]:
        """Yield the embeddings of each caption's tokens, without padding, in order."""
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
            batch_sharding = sharding_for(("batch",), ids_BS.shape[:1], self._mesh)
            return _encode(graphdef, state, *jax.device_put((ids_BS, mask_BS), batch_sharding))


def _unpad(embeddings: Array, mask_BS: np.ndarray, count: int) -> Iterator[Float[np.ndarray, "s E"]]:
    embedded_BSE = np.asarray(jax.device_get(embeddings), np.float32)
    yield from (embedded_BSE[row, mask_BS[row]] for row in range(count))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, ids_BS: TextIds, mask_BS: TextMask) -> Float[Array, "B S E"]:
    return nnx.merge(graphdef, *state)(ids_BS, mask_BS)


def _choose_mesh(model: TextEncoder) -> Mesh:
    """Return a mesh of the devices of this process, which shards the weights if their sizes divide."""
    devices = jax.local_devices()
    sharded = make_mesh(MeshConfig(data=1, fsdp=-1), devices)
    try:
        abstract_arrays(model, sharded)
    except ValueError:
        return make_mesh(MeshConfig(), devices)
    return sharded
