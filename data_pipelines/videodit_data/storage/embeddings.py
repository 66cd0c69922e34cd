"""Embeddings of captions, stored with the clips that have them: each caption once, in shards, found by its key.

The first record of a shard is the keys of the others, in their order, which is that of all keys over all shards.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
from jaxtyping import Shaped, UInt64

from videodit_data.boundary.typed_json import Count, shorten
from videodit_data.storage import manifest
from videodit_data.storage.records import (
    FloatType,
    RecordSource,
    check_floats,
    decode_msgpack,
    even_ranges,
    pack_floats,
    shard_name,
    unpack_floats,
    write_packed,
)
from videodit_data.tokenizer import clean_caption

NAME = "text"  # of the shards
CAPTIONS = 1024  # of a shard: 1 GB of UMT5-XXL's at 128 tokens each
_KEY = 16  # bytes, of which the first 8 are searched for

Embedding = Shaped[np.ndarray, "s E"]  # of the tokens that a caption has


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A stored caption and its embedding."""

    caption: str
    shape: tuple[Count, Count]
    dtype: FloatType
    embedding: bytes

    def __post_init__(self) -> None:
        check_floats(self.embedding, self.shape, self.dtype, "embedding")


_DECODER = msgspec.msgpack.Decoder(_Entry)


class Keys:
    """Keys of captions: hashes of the cleaned captions and of the text encoder's identity."""

    def __init__(self, made_by: Mapping[str, Any]):
        self._made_by = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).digest()

    def __call__(self, caption: str) -> bytes:
        return hashlib.sha256(self._made_by + clean_caption(caption).encode()).digest()[:_KEY]


def distinct_captions(captions: Iterable[str], keys: Keys) -> list[str]:
    """Return cleaned captions, each once, in the order of their keys, with the empty caption for dropped ones."""
    return sorted({clean_caption(caption) for caption in captions} | {""}, key=keys)


def shards_of(captions: Sequence[str]) -> dict[str, range]:
    """Return the file names of the shards of so many captions, and which of them each holds."""
    parts = even_ranges(len(captions), -(-len(captions) // CAPTIONS))
    return {shard_name(NAME, index, len(parts)): part for index, part in enumerate(parts)}


def write(path: Path, captions: Sequence[str], embeddings: Iterable[Embedding], keys: Keys, dtype: str) -> None:
    """Write one shard atomically: captions in the order of their keys, and the embeddings of each.

    `dtype` is how they are stored, "float16" or "bfloat16". ValueError when a value does not fit it.
    """

    def packed() -> Iterator[bytes]:
        yield b"".join(map(keys, captions))
        for caption, embedding in zip(captions, embeddings, strict=True):
            data = pack_floats(embedding, dtype, "Embeddings")
            yield msgpack.packb({"caption": caption, "shape": embedding.shape, "dtype": dtype, "embedding": data})

    write_packed(path, packed())


def describe(path: Path) -> manifest.TextShard:
    """Return the facts of a finished shard, read back from its file."""
    captions = len(RecordSource([path])) - 1
    return manifest.TextShard(path.name, manifest.sha256(path), path.stat().st_size, captions)


class Embeddings:
    """The embeddings of a data set's captions, open; safe to share between threads and to pickle.

    `made_by` is the encoder, the tokenizer and the length that its manifest names.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        """Open the embeddings. ValueError when the data set has none, or a shard is damaged."""
        described = manifest.load(directory)
        if not described.texts:
            raise ValueError(f"{directory} carries no embeddings of its captions: encode it with a text encoder.")
        made_by = described.info.get("text")
        if not isinstance(made_by, dict):
            raise ValueError(
                f"{Path(directory) / manifest.FILE}: info.text is {shorten(made_by)}; expected the text encoder's "
                "identity, a JSON object."
            )
        self.path, self.made_by = os.fspath(directory), made_by
        self._keys = Keys(self.made_by)
        self._shards = [RecordSource([Path(directory) / shard.name]) for shard in described.texts]
        sources = zip(described.texts, self._shards, strict=True)
        lists = [_read_keys(shard, len(of), of.packed(0) if len(of) else b"") for shard, of in sources]
        self._ends = np.cumsum([len(keys) for keys in lists])
        self._heads = np.concatenate(lists)

    def __len__(self) -> int:
        """Return the number of captions, including the empty one."""
        return len(self._heads)

    def __getitem__(self, caption: str) -> Embedding:
        """Return the embeddings of a caption's tokens, as stored. KeyError when the caption is missing."""
        head, caption = np.frombuffer(self._keys(caption)[:8], ">u8").astype(np.uint64)[0], clean_caption(caption)
        index = int(np.searchsorted(self._heads, head))
        while index < len(self) and self._heads[index] == head:
            shard = int(np.searchsorted(self._ends, index, side="right"))
            first = self._ends[shard] - (len(self._shards[shard]) - 1)
            source, number = self._shards[shard], 1 + index - int(first)
            try:
                entry = decode_msgpack(source.packed(number), _DECODER, "Not an embedding of this format")
            except ValueError as error:
                raise ValueError(f"{source.name(number)}: {error}") from error
            if entry.caption == caption:
                return unpack_floats(entry.embedding, entry.shape, entry.dtype)
            index += 1
        raise KeyError(caption)


def _read_keys(shard: manifest.TextShard, records: int, keys: bytes) -> UInt64[np.ndarray, " N"]:
    """Return the first halves of a shard's keys. ValueError unless they are one for each of its captions."""
    if len(keys) != _KEY * shard.captions or records != 1 + shard.captions:
        raise ValueError(
            f"{shard.name}, record 0: {len(keys)} bytes of keys for {records - 1} embeddings; expected {_KEY} bytes "
            f"and an embedding for each of the {shard.captions} captions that {manifest.FILE} counts."
        )
    return np.frombuffer(keys, ">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
