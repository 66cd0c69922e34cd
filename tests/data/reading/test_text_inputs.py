"""Captions served as embeddings: the same captions for the same clips as when they are served as tokens."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import CachedText, TokenizedText
from videodit_data.storage import embeddings, manifest, records
from videodit_data.storage.embeddings import Keys
from videodit_data.tokenizer import Tokenizer, train

CLIPS, LENGTH, WIDTH = 10, 9, 4
MADE_BY = {"weights": "abc", "length": LENGTH}


def captions_of(number):
    return [f"clip {number} gets brighter", f"a field, number {number}", "a grey field"]


def embedding(caption):
    rng = np.random.default_rng(list(caption.encode()) or [0])
    return rng.standard_normal((1 + len(caption) % LENGTH, WIDTH), np.float32)


def build(path, first=0, made_by=MADE_BY, dtype="bfloat16"):
    """Build a data set of latents with three captions per clip, and their embeddings."""
    size = {"fps": 8.0, "height": 16, "width": 16, "frames": 5}

    def record(number):
        original = records.from_video(f"c{number}", b"", captions_of(number), **size, source="tests", licence="CC0-1.0")
        return records.with_latent(original, *np.full((2, 2, 2, 2, 3), number, np.float32), **size)

    partial, keys = manifest.start(path, {"text": made_by}), Keys(made_by)
    numbers = range(first, first + CLIPS)
    records.write_shard(partial / "latents.array_record", map(record, numbers))
    ordered = embeddings.distinct_captions([caption for number in numbers for caption in captions_of(number)], keys)
    embeddings.write(partial / "text.array_record", ordered, map(embedding, ordered), keys, dtype)
    texts = [embeddings.describe(partial / "text.array_record")]
    manifest.finish(path, [manifest.describe(partial / "latents.array_record")], info={"text": made_by}, texts=texts)
    return str(path)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    return [build(root / "one"), build(root / "two", CLIPS)]


@pytest.fixture(scope="module")
def tokens():
    captions = [caption for number in range(2 * CLIPS) for caption in captions_of(number)]
    return TokenizedText(Tokenizer(train(captions, 90)), LENGTH)


@pytest.mark.parametrize("shapes", [OneSize(5, 16, 16), Packing(8, 3, 16, (1, 1, 1), (4, 8))], ids=["one", "packed"])
def test_the_same_captions_are_chosen_and_dropped_as_with_tokens(sets, tokens, shapes):
    config = ReaderConfig(tuple(map(WeightedDataset, sets)), shapes, batch_size=4, caption_dropout=0.3, num_threads=2)
    tokenized, cached = (list(islice(BatchIterator(config, texts), 6)) for texts in (tokens, CachedText(sets)))
    chosen_captions = set()
    for one, other in zip(tokenized, cached, strict=True):
        assert (one.clip_ids, one.captions) == (other.clip_ids, other.captions)
        assert one.arrays.text is None and other.arrays.text_ids is None
        assert np.array_equal(one.arrays.latent_mean, other.arrays.latent_mean) and np.array_equal(
            one.arrays.fps, other.arrays.fps
        )
        names, captions = (np.array(x).reshape(-1) for x in (other.clip_ids, other.captions))
        text, mask = other.arrays.text.reshape(-1, LENGTH, WIDTH), other.arrays.text_mask.reshape(-1, LENGTH)
        chosen_captions |= {*captions}
        for row, (name, caption) in enumerate(zip(names, captions, strict=True)):
            expected = embedding(caption).astype(text.dtype) if name else text[:0, 0]
            assert np.array_equal(text[row, mask[row]], expected) and not text[row, ~mask[row]].any()
    assert "" in chosen_captions and "a grey field" in chosen_captions and len(chosen_captions) > 8


def test_texts_tell_their_shapes_and_what_made_them(sets, tmp_path):
    texts = CachedText(sets)
    assert {name: x.shape for name, x in texts.specs.items()} == {"text": (LENGTH, WIDTH), "text_mask": (LENGTH,)}
    assert {name: (x.shape, x.dtype) for name, x in texts("").items()} == dict(texts.specs)
    assert texts.identity == CachedText(sets[:1]).identity
    other = build(tmp_path / "other", made_by=MADE_BY | {"weights": "abd"})
    finer = build(tmp_path / "finer", dtype="float16")
    assert len({CachedText([path]).identity for path in (sets[0], other, finer)}) == 3
    for path in (other, finer):
        with pytest.raises(ValueError, match="were not made and stored alike"):
            CachedText([sets[0], path])


def test_a_caption_that_was_not_embedded_is_named(sets):
    with pytest.raises(ValueError, match=r"one lack the caption 'clip 12 gets brighter': encode the data set again"):
        CachedText(sets[:1])("clip 12 gets brighter")


def test_tokens_of_tidied_captions_are_those_that_are_embedded(tokens):
    tidied = replace(tokens, clean=True)
    assert np.array_equal(tidied("a &amp; b")["text_ids"], tokens("a & b")["text_ids"])
    assert not np.array_equal(tokens("a &amp; b")["text_ids"], tokens("a & b")["text_ids"])
    assert tidied.identity != tokens.identity
