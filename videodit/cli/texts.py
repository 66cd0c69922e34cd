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
from videodit_data.tokenize import Tokenizer

from videodit.interop.safetensors import Output, Weights, write
from videodit.models.text import TextEncoder

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
        self._encode: Any = None

    def __call__(self, captions: Sequence[str]) -> tuple[Float[np.ndarray, "B S E"], Bool[np.ndarray, "B S"]]:
        """Embeddings and masks, zeros where a caption has ended."""
        ids_BS, mask_BS = self._tokenizer.encode(captions, self._length)
        rows = [self._row(text, ids_S, mask_S) for text, ids_S, mask_S in zip(captions, ids_BS, mask_BS, strict=True)]
        return np.stack(rows), mask_BS

    def close(self) -> None:
        """Lets go of the encoder, whose weights others may need the memory for."""
        self._encode = None

    def _row(self, caption: str, ids_S: np.ndarray, mask_S: np.ndarray) -> np.ndarray:
        key = self._made_by.copy()
        key.update(caption.encode())
        stem = key.hexdigest()[:32]
        file = self._folder / f"{stem}.safetensors"
        if file.is_file():
            made_SE = Weights(file)["embedding"].read()
        else:
            made_SE = self._made(ids_S, mask_S)
            if os.access(self._folder.parent, os.W_OK) and jax.process_index() == 0:
                self._folder.mkdir(exist_ok=True)
                output = Output(made_SE.dtype, made_SE.shape, lambda: made_SE)
                write(self._folder, stem, {"embedding": output}, metadata={"caption": caption})
        row_SE = np.zeros((self._length, made_SE.shape[-1]), np.float32)
        row_SE[: len(made_SE)] = made_SE
        return row_SE

    def _made(self, ids_S: np.ndarray, mask_S: np.ndarray) -> np.ndarray:
        if self._encode is None:
            graphdef, state = nnx.split(self._open())
            run = jax.jit(lambda state, ids, mask: nnx.merge(graphdef, state)(ids, mask))
            self._encode = lambda ids, mask: run(state, ids, mask)
        encoded_SE = jax.device_get(self._encode(ids_S[None], mask_S[None]))[0]
        return encoded_SE[mask_S].astype(np.float32)
