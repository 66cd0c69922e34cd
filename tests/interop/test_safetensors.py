"""Safetensors files: complete, sharded, truncated and invalid."""

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


def replace_header(file, header):
    """Replace the header of a file."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[start:])


def read_header(file):
    raw = file.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


@pytest.mark.parametrize("shard_bytes", [10**9, 50])
def test_read_inverts_write(tmp_path, shard_bytes):
    files = write(tmp_path, "model", outputs(ARRAYS), shard_bytes=shard_bytes)
    assert len(files) == (1 if shard_bytes > 50 else 3)
    for path in (tmp_path, files[-1]):
        weights = Weights(path)
        assert list(weights) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert weights[name].dtype == array.dtype
            np.testing.assert_array_equal(weights[name].read(), array)
    assert len(weights.sha256()) == len(weights.files)
    assert not list(tmp_path.glob("*.part"))


def test_files_follow_the_specification(tmp_path):
    """Little-endian length, JSON with offsets from its end, aligned: as its specification says."""
    (file,) = write(tmp_path, "model", outputs(ARRAYS), metadata={"licence": "Apache-2.0"})
    header = read_header(file)
    assert header["__metadata__"] == {"format": "pt", "licence": "Apache-2.0"}
    assert header["a"] == {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    assert header["b"] == {"dtype": "BF16", "shape": [5], "data_offsets": [48, 58]}
    assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0


def test_truncated_and_other_files_are_refused(tmp_path):
    (file,) = write(tmp_path, "model", outputs(ARRAYS))
    raw = file.read_bytes()
    file.write_bytes(raw[:-4])
    with pytest.raises(ValueError, match=r"is truncated: \w+ should end at byte \d+, the file ends at \d+"):
        Weights(tmp_path)
    file.write_bytes(raw[:20])
    with pytest.raises(ValueError, match="is truncated: its header should end"):
        Weights(tmp_path)
    file.write_bytes(b"PK\x03\x04" + raw)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Weights(tmp_path)
    file.write_bytes(raw[:8] + b"x" + raw[9:])
    with pytest.raises(ValueError, match="its header is invalid"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dtype": "F8_E4M3"}, "header is invalid: a: dtype is 'F8_E4M3': supported types are F64, F32"),
        ({"shape": [3, 5]}, r"a: data_offsets make 48 bytes, which is not the size of F32 of \[3, 5\]"),
        ({"data_offsets": [-4, 44]}, r"a: data_offsets is \(-4, 44\): each of its numbers must be from 0"),
    ],
)
def test_invalid_tensors_are_named(tmp_path, change, sentence):
    (file,) = write(tmp_path, "model", outputs(ARRAYS))
    header = read_header(file)
    header["a"] |= change
    replace_header(file, header)
    with pytest.raises(ValueError, match=sentence):
        Weights(file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"a": [0, 48], "b": [40, 50]}, "b of .* overlaps another tensor: it starts at byte"),
        ({"b": [52, 62], "c": [62, 64]}, "b of .* leaves a gap: it starts at byte"),
        ({"c": [2**40, 2**40 + 2]}, "(c|empty) of .* leaves a gap"),
        ({"a": [0, 48, 96]}, r"a.data_offsets must be a tuple of 2 \(an int, an int\), not \[0, 48, 96\]"),
        ({"a": ["0", 48]}, r"a.data_offsets\[0\] must be an int, not '0'"),
        ({"a": 5}, "a.data_offsets must be a tuple of 2"),
    ],
)
def test_tensors_lie_one_after_the_other(tmp_path, changes, sentence):
    (file,) = write(tmp_path, "model", outputs(ARRAYS))
    header = read_header(file)
    for name, offsets in changes.items():
        header[name]["data_offsets"] = offsets
    replace_header(file, header)
    with pytest.raises(ValueError, match=sentence):
        Weights(file)


def test_bytes_of_no_tensor_are_refused(tmp_path):
    (file,) = write(tmp_path, "model", outputs(ARRAYS))
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"ends at byte \d+, its last tensor at \d+: the rest belongs to none"):
        Weights(file)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"[]", r"its header is invalid: it must be a JSON object, not \[\]"),
        (b'{"a": 5}', "its header is invalid: a must be a JSON object, not 5"),
        (b'{"a": {}, "a": {}}', "its header is invalid: the key 'a' is there twice"),
        (b'{"a": {"dtype": "F32", "shape": [1]}}', "key 'a.data_offsets' is missing"),
        (b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}', r"a: shape is \(-1, -1\): each"),
        (b"\xff\xff", "it is not UTF-8: byte 0 is 0xff"),
    ],
)
def test_headers_of_other_shapes_are_refused(tmp_path, header, sentence):
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match=sentence):
        Weights(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({"a": 5}, "weight_map.a must be a string, not 5"),
        ([], "weight_map must be a JSON object, each value a string"),
        (
            {"a": "../model.safetensors"},
            "weight_map.a is '../model.safetensors': it must be a file in the index's folder",
        ),
        ({"a": "/dev/zero"}, "weight_map.a is '/dev/zero'"),
        ({"a": ""}, "weight_map.a is ''"),
        ({"a": ".."}, "weight_map.a is '..'"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path, weight_map, sentence):
    (tmp_path / f"model{INDEX}").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=sentence):
        Weights(tmp_path)


def test_an_index_and_its_files_must_agree(tmp_path):
    *shards, index = write(tmp_path, "model", outputs(ARRAYS), shard_bytes=50)
    index_json = json.loads(index.read_text())
    assert index.name == f"model{INDEX}" and set(index_json["weight_map"]) == set(ARRAYS)
    index.write_text(json.dumps(index_json | {"weight_map": index_json["weight_map"] | {"d": shards[0].name}}))
    with pytest.raises(ValueError, match="disagree on the tensors of the file: d"):
        Weights(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="needs a 'weight_map'"):
        Weights(tmp_path)
    index.write_text(json.dumps(index_json))
    shards[1].unlink()
    with pytest.raises(ValueError, match="lists 2 files, of which 1 are missing: model-00002"):
        Weights(tmp_path)


def test_folders_without_exactly_one_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file or folder"):
        Weights(tmp_path / "nothing")
    (tmp_path / "model.pth").touch()
    with pytest.raises(ValueError, match=r"has no .safetensors file.*model.pth may run code when opened"):
        Weights(tmp_path)
    for stem in ("a", "b"):
        write(tmp_path, stem, outputs(ARRAYS))
    with pytest.raises(ValueError, match=r"has 2 files \*.safetensors \(a.safetensors, b.safetensors\)"):
        Weights(tmp_path)
