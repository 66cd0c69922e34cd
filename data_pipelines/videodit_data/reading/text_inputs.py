"""Text inputs of batches: token ids, computed when captions are read, or cached embeddings."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from videodit_data.boundary.typed_json import Size, convert
from videodit_data.reading.batch import ArraySpec
from videodit_data.storage.embeddings import Embedding, Embeddings
from videodit_data.tokenizer import NoTokenizer, Tokenizer, clean_caption


@runtime_checkable
class TextInput(Protocol):
    """Arrays of a caption, all of the same shapes whatever the caption. Called from several threads at once."""

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """Return the specs of the arrays of one caption, by their names in the batch."""
        ...

    @property
    def identity(self) -> str:
        """Return the identity of the text input: equal identities give equal arrays."""
        ...

    def __call__(self, caption: str) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """Return the arrays; "" is the empty caption."""
        ...


@dataclass(frozen=True)
class TokenizedText:
    """`text_ids` and `text_mask` of `length` tokens, eos included.

    clean: captions are `clean_caption` first, as trained text encoders are used to.
    """

    tokenizer: Tokenizer | NoTokenizer
    length: int = 32
    clean: bool = False

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        return {
            "text_ids": ArraySpec((self.length,), np.dtype(np.int32)),
            "text_mask": ArraySpec((self.length,), np.dtype(bool)),
        }

    @property
    def identity(self) -> str:
        return f"{hashlib.sha256(self.tokenizer.model).hexdigest()}, {self.length} tokens{', tidied' * self.clean}"

    def __call__(self, caption: str) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        ids, mask = self.tokenizer.encode([clean_caption(caption) if self.clean else caption], self.length)
        return {"text_ids": ids[0], "text_mask": mask[0]}


@dataclass(frozen=True)
class _MadeBy:
    """What is read of the text encoder that a manifest names: tokens of a caption."""

    length: Size


class CachedText:
    """`text` and `text_mask` of as many tokens as were embedded, from the data sets of the captions.

    Embeddings are as stored, and zero where a caption has ended.
    """

    def __init__(self, data_sets: Sequence[str | os.PathLike[str]]):
        """Open the embeddings. ValueError when a data set has none, or they were made or stored differently."""
        self._stored = [Embeddings(path) for path in dict.fromkeys(map(os.fspath, data_sets))]
        first, like = self._stored[0], self._stored[0][""]
        for other in self._stored[1:]:
            if (other.made_by, other[""].dtype) != (first.made_by, like.dtype):
                raise ValueError(f"The embeddings of {first.path} and {other.path} were not made and stored alike.")
        self.made_by = first.made_by
        self._length = convert(self.made_by, _MadeBy, f"{first.path}: info.text of its manifest", more=True).length
        self.specs: Mapping[str, ArraySpec] = {
            "text": ArraySpec((self._length, like.shape[1]), like.dtype),
            "text_mask": ArraySpec((self._length,), np.dtype(bool)),
        }

    @property
    def identity(self) -> str:
        made_by = json.dumps(self.made_by, sort_keys=True).encode()
        return f"{hashlib.sha256(made_by).hexdigest()}, {self.specs['text'].dtype}"

    def __call__(self, caption: str) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """Return the arrays of a caption. ValueError when no data set has it."""
        embedding = self._find(caption)
        (shape, dtype), count = self.specs["text"], len(embedding)
        if count > shape[0] or (embedding.shape[1:], embedding.dtype) != (shape[1:], dtype):
            raise ValueError(
                f"The embedding of '{caption:.80}' is {embedding.dtype} of shape {embedding.shape}; expected {dtype} "
                f"of at most {shape}: encode the data set again."
            )
        text = np.zeros(shape, dtype)
        text[:count] = embedding
        return {"text": text, "text_mask": np.arange(self._length) < count}

    def _find(self, caption: str) -> Embedding:
        for stored in self._stored:
            with contextlib.suppress(KeyError):
                return stored[caption]
        paths = ", ".join(stored.path for stored in self._stored)
        raise ValueError(f"The embeddings of {paths} lack the caption '{caption:.80}': encode the data set again.")
