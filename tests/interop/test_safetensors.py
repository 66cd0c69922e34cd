"""Files whole, split, cut off and wrong."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from videodit.interop.safetensors import INDEX, Output, Weights, write

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5).astype(jnp.bfloat16),
    "c": np.array(2.5, np.float16),
    "empty": np.zeros((0, 3), np.int64),
}


def outputs(arrays):
    return {name: Output(x.dtype, x.shape, lambda x=x: x) for name, x in arrays.items()}


def patched(file, header):
    """The file with another header, and the same bytes after it."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[start:])


def header_of(file):
    raw = file.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


@pytest.mark.parametrize("shard_bytes", [10**9, 50])
def test_what_is_written_is_read(tmp_path, shard_bytes):
    files = write(tmp_path, "model", outputs(ARRAYS), shard_bytes=shard_bytes)
    assert len(files) == (1 if shard_bytes > 50 else 3)
    for place in (tmp_path, files[-1]):
        weights = Weights(place)
        assert list(weights) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert weights[name].dtype == array.dtype
            np.testing.assert_array_equal(weights[name].read(), array)
    assert len(weights.sha256()) == len(weights.files)
    assert not list(tmp_path.glob("*.part"))


def test_the_format_is_the_library_s(tmp_path):
    """Little-endian length, JSON with offsets from its end, aligned: as its specification says."""
    (file,) = write(tmp_path, "model", outputs(ARRAYS), metadata={"licence": "Apache-2.0"})
    header = header_of(file)
    assert header["__metadata__"] == {"format": "pt", "licence": "Apache-2.0"}
    assert header["a"] == {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    assert header["b"] == {"dtype": "BF16", "shape": [5], "data_offsets": [48, 58]}
    assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0


def test_a_file_that_is_cut_off_or_none_says_so(tmp_path):
    (file,) = write(tmp_path, "model", outputs(ARRAYS))
    raw = file.read_bytes()
    file.write_bytes(raw[:-4])
    with pytest.raises(ValueError, match=r"is cut off: \w+ should end at byte \d+, the file ends at \d+"):
        Weights(tmp_path)
    file.write_bytes(raw[:20])
    with pytest.raises(ValueError, match="is cut off: its header should end"):
        Weights(tmp_path)
    file.write_bytes(b"PK\x03\x04" + raw)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Weights(tmp_path)
    file.write_bytes(raw[:8] + b"x" + raw[9:])
    with pytest.raises(ValueError, match="its header is not one"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dtype": "F8_E4M3"}, "a of .* has the type F8_E4M3: what can be read is F64, F32"),
        ({"shape": [3, 5]}, r"a of .* has 48 bytes: F32 of \[3, 5\] does not fit them"),
        ({"data_offsets": [-4, 44]}, "a of .* has 48 bytes"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(tmp_path, change, sentence):
    (file,) = write(tmp_path, "model", outputs(ARRAYS))
    header = header_of(file)
    header["a"] |= change
    patched(file, header)
    with pytest.raises(ValueError, match=sentence):
        Weights(file)


def test_an_index_and_its_files_must_agree(tmp_path):
    *shards, index = write(tmp_path, "model", outputs(ARRAYS), shard_bytes=50)
    listed = json.loads(index.read_text())
    assert index.name == f"model{INDEX}" and set(listed["weight_map"]) == set(ARRAYS)
    index.write_text(json.dumps(listed | {"weight_map": listed["weight_map"] | {"d": shards[0].name}}))
    with pytest.raises(ValueError, match="disagree about which tensors the file holds: d"):
        Weights(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="needs a 'weight_map'"):
        Weights(tmp_path)
    index.write_text(json.dumps(listed))
    shards[1].unlink()
    with pytest.raises(ValueError, match="lists 2 files, of which 1 are missing: model-00002"):
        Weights(tmp_path)


def test_a_folder_without_or_with_too_many_says_what_it_holds(tmp_path):
    with pytest.raises(ValueError, match="there is no file or folder"):
        Weights(tmp_path / "nothing")
    (tmp_path / "model.pth").touch()
    with pytest.raises(ValueError, match=r"holds no .safetensors file.*model.pth may run code when opened"):
        Weights(tmp_path)
    for stem in ("a", "b"):
        write(tmp_path, stem, outputs(ARRAYS))
    with pytest.raises(ValueError, match=r"holds 2 of \*.safetensors \(a.safetensors, b.safetensors\)"):
        Weights(tmp_path)
