import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from videodit.checkpoint import checksums
from videodit.checkpoint.checksums import compute_checksums, find_damaged
from videodit.parallel.mesh import MeshConfig, make_mesh

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool")
SHAPES = ((), (1,), (0, 3), (7,), (8, 12), (2, 8, 4), (70_001,))


def draw(dtype, shape, seed=0):
    x = 100 * np.random.default_rng(seed).normal(size=shape)
    return np.asarray(x > 0 if dtype == "bool" else x).astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_host_and_device_compute_one_checksum(dtype):
    for shape in SHAPES:
        x = draw(dtype, shape)
        start = (0,) * x.ndim
        assert checksums._sum_host(x, start, shape) == checksums._sum_device(jnp.asarray(x), start, shape)
        assert compute_checksums({"x": x}) == compute_checksums({"x": jnp.asarray(x)})


@pytest.mark.parametrize("spec", [(), ("fsdp",), (None, "fsdp"), ("data", "fsdp"), (("data", "fsdp"),)])
@pytest.mark.parametrize("on_device", [False, True])
def test_the_checksum_does_not_depend_on_the_sharding(spec, on_device, monkeypatch):
    x = draw("float32", (8, 12 if len(spec) < 2 else 16))
    sharded = jax.device_put(x, NamedSharding(make_mesh(MeshConfig(data=2, fsdp=4)), PartitionSpec(*spec)))
    if on_device:  # as where the devices are no CPUs
        monkeypatch.setattr(checksums, "_sum_host", checksums._sum_device)
    assert compute_checksums([sharded]) == compute_checksums([x])


@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_every_flipped_bit_is_noticed(dtype):
    x = draw(dtype, (3, 5))
    recorded = compute_checksums({"x": x})
    bits = np.frombuffer(x.tobytes(), np.uint8)
    for place in range(8 * bits.size):
        flipped = bits.copy()
        flipped[place // 8] ^= 1 << place % 8
        assert find_damaged({"x": flipped.view(x.dtype).reshape(x.shape)}, recorded) == ["x"]


def test_exchanged_shifted_and_zeroed_elements_are_noticed():
    x = draw("float32", (1000,))
    recorded = compute_checksums({"x": x})
    for damaged in (np.roll(x, 1), x[::-1], np.zeros_like(x), -x, np.where(np.arange(1000) < 500, x, 0)):
        assert find_damaged({"x": damaged.astype(np.float32)}, recorded) == ["x"]
    swapped = x.copy()
    swapped[[3, 900]] = x[[900, 3]]
    assert find_damaged({"x": swapped}, recorded) == ["x"]


def test_arrays_that_are_read_in_a_wider_type_are_checked_in_their_own():
    x = draw("bfloat16", (9, 4))
    recorded = compute_checksums({"a": {"x": x}})
    assert find_damaged({"a": {"x": x.astype(np.float32)}}, recorded) == []
    assert find_damaged({"a": {"x": (2 * x).astype(np.float32)}}, recorded) == ["a.x"]
    assert find_damaged({"a": {"y": x}}, recorded) == ["a.y"]
