"""The tokenizer of captions: a sentencepiece model with T5's special ids, trained here or read from a file."""

import html
import io
import itertools
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import ftfy
import numpy as np
import sentencepiece
from jaxtyping import Bool, Int32

PAD, EOS, UNKNOWN = 0, 1, 2
_SPACE = "\u2581"  # what sentencepiece writes for a space


def train(captions: Iterable[str], vocabulary: int = 1024, *, model_type: str = "bpe") -> bytes:
    """Return a sentencepiece model of at most `vocabulary` pieces, as bytes; the same captions give the same bytes.

    `model_type` is "bpe" (Sennrich et al. 2016), which makes whole words even of few captions, or "unigram" (Kudo
    2018), T5's own. Fewer pieces come out where the captions hold no more. ValueError when there is nothing to learn.
    """
    if model_type not in ("bpe", "unigram"):
        raise ValueError(f"A tokenizer is of type bpe or unigram, not {model_type}.")
    if not 3 < vocabulary < 2**31:
        raise ValueError(f"A tokenizer has from 4 to 2^31 - 1 pieces, three of them special, not {vocabulary}.")
    captions = [caption for caption in captions if caption.strip()]
    if not captions:
        raise ValueError("A tokenizer cannot be trained without captions.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
            model_writer=model,
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            model_type=model_type,
            character_coverage=1.0,
            max_sentence_length=1 << 20,  # longer captions would be passed over in silence
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNKNOWN,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if few := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
            raise ValueError(
                f"A tokenizer of {vocabulary} pieces has no room for all characters of these captions: it needs "
                f"{few[1]} at least."
            ) from error
        raise ValueError(f"No tokenizer of {vocabulary} pieces can be trained on these captions: {error}.") from error
    return model.getvalue()


def is_model(data: bytes) -> bool:
    """Return whether the bytes are a sentencepiece model, of whatever special ids."""
    try:
        return bool(data) and bool(sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(data))
    except RuntimeError:
        return False


def clean_caption(caption: str) -> str:
    """Clean a caption as Wan's pipelines do before tokenization: encoding, HTML entities, quotes, spaces."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(caption))).split())


class Tokenizer:
    """A sentencepiece model that ends every text with eos and pads with 0, as T5 does."""

    def __init__(self, model: bytes | str | os.PathLike[str]):
        """Read a model from its bytes or file. ValueError when it is not one, or has other special ids than T5's."""
        label = "the given bytes" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ValueError(f"No tokenizer model at {label}.")
        self.model = model if isinstance(model, bytes) else Path(model).read_bytes()
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(self.model)
        except RuntimeError as error:
            raise ValueError(f"Not a sentencepiece model: {label}.") from error
        special_ids = (self._pieces.pad_id(), self._pieces.eos_id(), self._pieces.unk_id())
        if special_ids != (PAD, EOS, UNKNOWN):
            raise ValueError(
                f"{label}: pad, eos and unknown must be {PAD}, {EOS} and {UNKNOWN} as in T5, not {special_ids}."
            )
        self._warned = False

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes]]:
        return Tokenizer, (self.model,)

    @property
    def size(self) -> int:
        """Return the number of ids."""
        return self._pieces.get_piece_size()

    def encode(self, texts: Sequence[str], length: int) -> tuple[Int32[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
        """Encode texts to (ids, mask) of `length` tokens each, eos included; longer texts are cut before their eos.

        The empty text is eos alone: what guidance takes as "no caption".
        """
        if length < 1:
            raise ValueError(f"A text needs room for at least its eos, not {length} tokens.")
        ids_BS = np.full((len(texts), length), PAD, np.int32)
        mask_BS = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            pieces = self._pieces.encode(text)
            if len(pieces) > length - 1:
                self._warn(text, len(pieces) + 1, length)
            pieces = [*pieces[: length - 1], EOS]
            ids_BS[row, : len(pieces)] = pieces
            mask_BS[row, : len(pieces)] = True
        return ids_BS, mask_BS

    def find_unknown(self, text: str) -> tuple[list[str], bool]:
        """Return the parts of a text that have no token, in order, and whether any other part of it has one."""
        pieces = self._pieces.encode(text, out_type=str)
        is_unknown = [token == UNKNOWN for token in self._pieces.encode(text)]
        parts = itertools.groupby(zip(pieces, is_unknown, strict=True), key=lambda pair: pair[1])
        unknown = ["".join(piece for piece, _ in part).replace(_SPACE, " ").strip() for flag, part in parts if flag]
        return unknown, any(piece != _SPACE and not flag for piece, flag in zip(pieces, is_unknown, strict=True))

    def decode(self, ids: Int32[np.ndarray, "B S"]) -> list[str]:
        """Decode ids of `encode` to texts, up to spelling that the model normalises."""
        return [self._pieces.decode([int(piece) for piece in row if piece not in (PAD, EOS)]) for row in ids]

    def _warn(self, text: str, tokens: int, length: int) -> None:
        if not self._warned:
            self._warned = True
            logging.getLogger(__name__).warning(
                "A caption of %d tokens is cut to %d, further ones without notice: '%s'.", tokens, length, text
            )


class NoTokenizer:
    """A replacement of `Tokenizer` where no text is read: every caption becomes eos alone."""

    model, size = b"", 2

    def encode(self, texts: Sequence[str], length: int) -> tuple[Int32[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
        """Return the ids and mask of empty captions."""
        mask = np.zeros((len(texts), length), bool)
        mask[:, 0] = True
        return np.where(mask, EOS, PAD).astype(np.int32), mask
