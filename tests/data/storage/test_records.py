import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import numpy as np
import pytest
from videodit_data.storage import records


def record(number: int = 0, truth: dict | None = None) -> records.Record:
    return records.from_video(
        f"clip-{number}",
        bytes([number]) * 50,
        ["ein Würfel", "a cube"],
        fps=30000 / 1001,
        height=32,
        width=48,
        frames=9,
        source="tests",
        licence="CC0-1.0",
        truth=truth,
    )


TRUTH = {"objects": [{"x": [0.5, 1.25], "colour": "red", "hidden": None, "seen": True}], "count": 1}


def test_a_record_survives_packing():
    original = record(3, TRUTH)
    assert records.unpack(original.pack()) == original
    assert original.seconds == pytest.approx(9 * 1001 / 30000)


def test_each_caption_has_a_source_or_none_has():
    original = dataclasses.replace(record(), caption_sources=("file", "a model, short"))
    assert records.unpack(original.pack()) == original
    with pytest.raises(ValueError, match="2 captions and 1 sources of captions"):
        dataclasses.replace(original, caption_sources=("file",))


def test_records_of_before_captions_had_sources_open():
    values = msgpack.unpackb(record().pack())
    del values["caption_sources"]
    assert records.unpack(msgpack.packb(values)) == record()


def test_truth_of_other_than_plain_values_is_refused():
    with pytest.raises(ValueError, match="'clip-1' must hold only plain values"):
        record(1, {"x": np.zeros(2)}).pack()


@pytest.mark.parametrize("change", [{"id": ""}, {"captions": ()}, {"frames": 0}, {"fps": 0.0}])
def test_a_record_lacks_nothing(change: dict):
    with pytest.raises(ValueError, match="needs an id, a caption, frames and a positive rate"):
        records.Record(**{**vars(record()), **change})


@pytest.mark.parametrize("data", [b"", b"junk", b"\x80", b"\x93\x01\x02\x03"])
def test_other_bytes_are_no_record(data: bytes):
    with pytest.raises(ValueError, match="Not a clip record"):
        records.unpack(data)


@pytest.mark.parametrize(("dtype", "precision"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_latents_are_stored_to_the_precision_of_their_type(dtype: str, precision: float):
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(2, 3, 4, 6, 8)).astype(np.float32) * 5
    packed = records.with_latent(record(2, TRUTH), mean, logvar, fps=8.0, frames=9, height=32, width=48, dtype=dtype)
    back = records.unpack(packed.pack())
    assert back == packed and back.video == b"" and (back.fps, back.truth) == (8.0, TRUTH)
    for stored, expected in zip(back.latent.arrays(), (mean, logvar), strict=True):
        assert stored.dtype.name == dtype
        np.testing.assert_allclose(stored.astype(np.float32), expected, rtol=precision, atol=1e-7)
        exact = stored.astype(np.float32)
        second = records.with_latent(back, exact, exact, fps=8.0, frames=9, height=32, width=48, dtype=dtype)
        assert np.array_equal(second.latent.arrays()[0], stored)  # what fits exactly stays


def test_bfloat16_rounds_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8)], np.float32).reshape(4, 1, 1, 1)
    packed = records.with_latent(record(), values, values, fps=8.0, frames=13, height=8, width=8, dtype="bfloat16")
    assert packed.latent.arrays()[0].ravel().tolist() == [1.0, 1.0, 1 + 2**-6, -1.0]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, "bfloat16", "finite"),
        (np.inf, "bfloat16", "finite"),
        (1e5, "float16", "65504"),
        (1, "int8", "not int8"),
    ],
)
def test_latents_that_do_not_fit_are_refused(value: float, dtype: str, message: str):
    latent = np.full((1, 2, 2, 4), value, np.float32)
    with pytest.raises(ValueError, match=message):
        records.with_latent(record(), latent, latent, fps=8.0, frames=1, height=16, width=16, dtype=dtype)


def test_records_are_read_at_random_from_several_shards(tmp_path: Path):
    paths = [tmp_path / records.shard_name("clips", index, 3) for index in range(3)]
    for path, numbers in zip(paths, records.even_ranges(10, 3), strict=True):
        records.write_shard(path, map(record, numbers))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "clips-00000-of-00003.array_record",
        "clips-00001-of-00003.array_record",
        "clips-00002-of-00003.array_record",
    ]
    source = records.RecordSource(paths)
    assert len(source) == 10 and source[-1] == record(9)
    with pytest.raises(IndexError, match="Record 10 of 10"):
        source[10]
    for reader in (source, pickle.loads(pickle.dumps(source))):
        with ThreadPoolExecutor(8) as pool:
            order = [number * 7 % 10 for number in range(200)]
            assert [item.id for item in pool.map(reader.__getitem__, order)] == [f"clip-{n}" for n in order]


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path):
    def some():
        yield record(0)
        raise RuntimeError("out of clips")

    with pytest.raises(RuntimeError, match="out of clips"):
        records.write_shard(tmp_path / "a.array_record", some())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (3, 3), (7, 1), (1000, 7)])
def test_ranges_are_even_and_whole(total: int, parts: int):
    ranges = records.even_ranges(total, parts)
    assert [number for part in ranges for number in part] == list(range(total))
    lengths = [len(part) for part in ranges]
    assert len(lengths) == parts and max(lengths) - min(lengths) <= 1
