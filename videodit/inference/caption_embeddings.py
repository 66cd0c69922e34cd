"""Captions through a frozen text encoder: encoded once, and kept on disk."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, PyTree
from videodit_data.tokenizer import Tokenizer, clean_caption

from videodit.checkpoint.workdir import CONFIG_FILE, PROVENANCE_FILE
from videodit.interop.safetensors import Output, Weights, write
from videodit.models.text import TextEncoder
from videodit.parallel.distributed import broadcast_from_main, on_main_process
from videodit.parallel.rules import constrain

FOLDER = "embeddings"  # in the encoder's directory
EncodeFn = Callable[[np.ndarray, np.ndarray], jax.Array]


class CaptionEmbeddings:
    """Embeddings of captions, read from disk where they have been computed before.

    Args:
        directory: of the encoder; embeddings are kept below it, by what they depend on, where it can be written to.
        tokenizer: of its captions.
        length: tokens of a caption.
        open_encoder: opens the encoder, when a caption is met that is not on disk.
    """

    def __init__(self, directory: Path, tokenizer: Tokenizer, length: int, open_encoder: Callable[[], TextEncoder]):
        self._folder, self._tokenizer, self._length = directory / FOLDER, tokenizer, length
        self._open_encoder = open_encoder
        described = (directory / name for name in (CONFIG_FILE, PROVENANCE_FILE))
        encoder = [path.read_bytes() for path in described if path.is_file()]
        self._key = hashlib.sha256(b"\0".join([*encoder, tokenizer.model, str(length).encode()]))
        self._embeddings: dict[str, Float[np.ndarray, "s E"]] = {}

    def __call__(self, captions: Sequence[str]) -> tuple[Float[np.ndarray, "B S E"], Bool[np.ndarray, "B S"]]:
        """Return embeddings and masks, zeros where a caption has ended."""
        self.prepare(captions)
        embeddings = [self._embeddings[clean_caption(caption)] for caption in captions]
        mask_BS = np.arange(self._length) < np.array([len(each_SE) for each_SE in embeddings])[:, None]
        padded_BSE = np.zeros((*mask_BS.shape, embeddings[0].shape[-1]), np.float32)
        padded_BSE[mask_BS] = np.concatenate(embeddings)
        return padded_BSE, mask_BS

    def prepare(self, captions: Sequence[str]) -> None:
        """Encode the captions that are new, then release the encoder, whose memory other weights need."""
        new = [caption for caption in dict.fromkeys(map(clean_caption, captions)) if caption not in self._embeddings]
        files = [self._folder / f"{self._stem(caption)}.safetensors" for caption in new]
        # One process may write what another is about to look for.
        stored = broadcast_from_main([file.is_file() for file in files])
        encode = None if all(stored) else self._encoder()
        for caption, file, is_stored in zip(new, files, stored, strict=True):
            if is_stored:
                self._embeddings[caption] = Weights(file)["embedding"].read().astype(np.float32)
            else:
                self._embeddings[caption] = self._encode(encode, caption)
                on_main_process(lambda file=file, caption=caption: self._store(file, caption))

    def _stem(self, caption: str) -> str:
        key = self._key.copy()
        key.update(caption.encode())
        return key.hexdigest()[:32]

    def _encoder(self) -> EncodeFn:
        graphdef, state = nnx.split(self._open_encoder())

        @jax.jit
        def run(state: PyTree, ids_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
            return constrain(nnx.merge(graphdef, state)(ids_BS, mask_BS), (None, None, None))

        return lambda ids_BS, mask_BS: run(state, ids_BS, mask_BS)

    def _encode(self, encode: EncodeFn, caption: str) -> Float[np.ndarray, "s E"]:
        """Return the embeddings of the tokens that a caption has."""
        ids_BS, mask_BS = self._tokenizer.encode([caption], self._length)
        return np.asarray(encode(ids_BS, mask_BS))[mask_BS].astype(np.float32)

    def _store(self, file: Path, caption: str) -> None:
        if os.access(self._folder.parent, os.W_OK):
            self._folder.mkdir(exist_ok=True)
            embedding_SE = self._embeddings[caption]
            output = Output(embedding_SE.dtype, embedding_SE.shape, lambda: embedding_SE)
            write(self._folder, file.stem, {"embedding": output}, metadata={"caption": caption})
