"""Captions through a text encoder that stays as it is: encoded once, and kept on disk."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float
from videodit_data.tokenizer import Tokenizer, cleaned

from videodit.interop.safetensors import Output, Weights, write
from videodit.models.text import TextEncoder
from videodit.parallel.distributed import first_says, on_first
from videodit.parallel.rules import constrain

FOLDER = "embeddings"  # in the encoder's directory


class Texts:
    """Embeddings of captions, from disk where they have been made before.

    Args:
        directory: of the encoder; embeddings are kept below it, by what made them, where it can be written to.
        tokenizer: of its captions.
        length: tokens of a caption.
        open_encoder: opens the encoder, when a caption is met that is not on disk.
    """

    def __init__(self, directory: Path, tokenizer: Tokenizer, length: int, open_encoder: Callable[[], TextEncoder]):
        self._folder, self._tokenizer, self._length, self._open = directory / FOLDER, tokenizer, length, open_encoder
        described = (directory / name for name in ("config.json", "provenance.json"))
        made_by = [path.read_bytes() for path in described if path.is_file()]
        self._made_by = hashlib.sha256(b"\0".join([*made_by, tokenizer.model, str(length).encode()]))
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, captions: Sequence[str]) -> tuple[Float[np.ndarray, "B S E"], Bool[np.ndarray, "B S"]]:
        """Embeddings and masks, zeros where a caption has ended."""
        self.prepare(captions)
        made = [self._known[cleaned(caption)] for caption in captions]
        mask_BS = np.arange(self._length) < np.array([len(row_SE) for row_SE in made])[:, None]
        embedded_BSE = np.zeros((*mask_BS.shape, made[0].shape[-1]), np.float32)
        embedded_BSE[mask_BS] = np.concatenate(made)
        return embedded_BSE, mask_BS

    def prepare(self, captions: Sequence[str]) -> None:
        """Encodes those that are new, then lets go of the encoder, whose weights others need the memory for."""
        new = [caption for caption in dict.fromkeys(map(cleaned, captions)) if caption not in self._known]
        files = [self._folder / f"{self._stem(caption)}.safetensors" for caption in new]
        # One process may write what another is about to look for.
        stored = first_says([file.is_file() for file in files])
        encode = None if all(stored) else self._encoder()
        for caption, file, there in zip(new, files, stored, strict=True):
            if there:
                self._known[caption] = Weights(file)["embedding"].read().astype(np.float32)
            else:
                self._known[caption] = self._encoded(encode, caption)
                on_first(lambda file=file, caption=caption: self._store(file, caption))

    def _stem(self, caption: str) -> str:
        key = self._made_by.copy()
        key.update(caption.encode())
        return key.hexdigest()[:32]

    def _encoder(self) -> Callable[[np.ndarray, np.ndarray], jax.Array]:
        graphdef, state = nnx.split(self._open())

        @jax.jit
        def run(state: Any, ids_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
            return constrain(nnx.merge(graphdef, state)(ids_BS, mask_BS), (None, None, None))

        return lambda ids_BS, mask_BS: run(state, ids_BS, mask_BS)

    def _encoded(self, encode: Any, caption: str) -> Float[np.ndarray, "s E"]:
        """The embeddings of the tokens that a caption has."""
        ids_BS, mask_BS = self._tokenizer.encode([caption], self._length)
        return np.asarray(encode(ids_BS, mask_BS))[mask_BS].astype(np.float32)

    def _store(self, file: Path, caption: str) -> None:
        if os.access(self._folder.parent, os.W_OK):
            self._folder.mkdir(exist_ok=True)
            made_SE = self._known[caption]
            output = Output(made_SE.dtype, made_SE.shape, lambda: made_SE)
            write(self._folder, file.stem, {"embedding": output}, metadata={"caption": caption})
