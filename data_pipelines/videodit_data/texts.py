"""What a loader serves of captions: token ids, made as they are needed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from videodit_data.spec import ArraySpec
from videodit_data.tokenize import NoTokenizer, Tokenizer


@runtime_checkable
class Texts(Protocol):
    """Arrays of a caption, all of the same shapes whatever the caption. Called from several threads at once."""

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        """The arrays of one caption, by the batch's names."""
        ...

    @property
    def identity(self) -> str:
        """What tells these texts from any other: the same one gives the same arrays."""
        ...

    def __call__(self, caption: str) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """The arrays; "" is the empty caption."""
        ...


@dataclass(frozen=True)
class TokenizedText:
    """`text_ids` and `text_mask` of `length` tokens, eos included."""

    tokenizer: Tokenizer | NoTokenizer
    length: int = 32

    @property
    def specs(self) -> Mapping[str, ArraySpec]:
        return {
            "text_ids": ArraySpec((self.length,), np.dtype(np.int32)),
            "text_mask": ArraySpec((self.length,), np.dtype(bool)),
        }

    @property
    def identity(self) -> str:
        return f"{hashlib.sha256(self.tokenizer.model).hexdigest()}, {self.length} tokens"

    def __call__(self, caption: str) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        ids, mask = self.tokenizer.encode([caption], self.length)
        return {"text_ids": ids[0], "text_mask": mask[0]}
