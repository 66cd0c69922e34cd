import pickle

import ml_dtypes
import numpy as np
import pytest
from videodit_data.storage import embeddings, manifest, records
from videodit_data.storage.embeddings import Embeddings, Keys

CAPTIONS = [f"a cat of {number} years" for number in range(40)]
MADE_BY = {"weights": "abc", "length": 8}


def embedding(caption: str) -> np.ndarray:
    rng = np.random.default_rng(list(caption.encode()) or [0])
    return rng.standard_normal((1 + len(caption) % 7, 6), np.float32)


def build(path, monkeypatch, captions=CAPTIONS, a_shard=16):
    monkeypatch.setattr(embeddings, "CAPTIONS", a_shard)
    keys = Keys(MADE_BY)
    partial = manifest.start(path, {"text": MADE_BY})
    size = {"fps": 8.0, "height": 8, "width": 8, "frames": 5}
    record = records.from_video("one", b"x", captions, **size, source="tests", licence="CC0-1.0")
    records.write_shard(partial / "clips.array_record", [record])
    ordered = embeddings.distinct_captions(captions, keys)
    for name, part in embeddings.shards_of(ordered).items():
        some = ordered[part.start : part.stop]
        embeddings.write(partial / name, some, map(embedding, some), keys, "bfloat16")
    texts = [embeddings.describe(partial / name) for name in embeddings.shards_of(ordered)]
    shards = [manifest.describe(partial / "clips.array_record")]
    return manifest.finish(path, shards, info={"text": MADE_BY}, texts=texts)


def test_every_caption_is_found_once_and_as_it_was_stored(tmp_path, monkeypatch):
    dataset = build(tmp_path / "set", monkeypatch, [*CAPTIONS, CAPTIONS[3], f"  {CAPTIONS[5]}\n"])
    assert [shard.captions for shard in dataset.texts] == [13, 14, 14]
    assert manifest.load(tmp_path / "set") == dataset and manifest.find_damaged_shards(tmp_path / "set") == []
    stored = pickle.loads(pickle.dumps(Embeddings(tmp_path / "set")))
    assert len(stored) == len(CAPTIONS) + 1 and stored.made_by == MADE_BY
    for caption in ["", *CAPTIONS]:
        assert stored[caption].dtype == ml_dtypes.bfloat16
        assert np.array_equal(stored[caption], embedding(caption).astype(ml_dtypes.bfloat16))
    assert np.array_equal(stored["  a  cat of 7\tyears "], stored["a cat of 7 years"])
    with pytest.raises(KeyError):
        stored["a dog"]


def test_captions_whose_keys_share_a_prefix_are_distinguished(tmp_path, monkeypatch):
    full_key = Keys.__call__
    monkeypatch.setattr(Keys, "__call__", lambda self, caption: b"collide!" + full_key(self, caption)[8:])
    build(tmp_path / "set", monkeypatch)
    stored = Embeddings(tmp_path / "set")
    for caption in ["", *CAPTIONS]:
        assert np.array_equal(stored[caption], embedding(caption).astype(ml_dtypes.bfloat16))
    with pytest.raises(KeyError):
        stored["a dog"]


def test_keys_depend_on_what_makes_the_embeddings():
    assert Keys(MADE_BY)("a cat") == Keys(dict(reversed(MADE_BY.items())))(" a cat")
    assert len({Keys(made_by)("a cat") for made_by in (MADE_BY, MADE_BY | {"length": 9}, {})}) == 3


def test_a_data_set_without_embeddings_and_one_that_lost_a_shard_are_named(tmp_path, monkeypatch):
    build(tmp_path / "set", monkeypatch)
    (tmp_path / "set" / "text-00001-of-00003.array_record").unlink()
    with pytest.raises(ValueError, match=r"text-00001-of-00003.array_record is missing"):
        Embeddings(tmp_path / "set")
    size = {"fps": 8.0, "height": 8, "width": 8, "frames": 5}
    record = records.from_video("one", b"x", ["a"], **size, source="tests", licence="CC0-1.0")
    manifest.build(tmp_path / "plain", lambda part: [record], 1, info={})
    with pytest.raises(ValueError, match="carries no embeddings"):
        Embeddings(tmp_path / "plain")


def test_what_does_not_fit_the_type_is_refused_and_leaves_no_shard(tmp_path):
    path = tmp_path / "text.array_record"
    with pytest.raises(ValueError, match="Embeddings must be finite and fit float16"):
        embeddings.write(path, ["a"], [np.full((1, 2), 1e6)], Keys(MADE_BY), "float16")
    assert not list(tmp_path.iterdir())
