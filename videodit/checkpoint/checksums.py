"""Checksums of arrays: the same for every sharding, so that any reader can check what it has read.

The checksum of an array is the sum, modulo 2^32, of one number per element: its bits mixed with its position. For a
given position the mixing is one-to-one, so every change of a single element changes the sum; any other change goes
unnoticed once in 2^32 times. Sums over the shards of an array add up to that of the array.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree, Shaped, UInt32

_POSITION, _BITS = 0x9E3779B1, 0x85EBCA6B  # odd: multiplication by them is one-to-one
_BLOCK = 1 << 14  # elements that are mixed at a time on the host, in its caches
_MIN_COMPILED_BYTES = 1 << 20  # on CPUs, smaller parts are not worth compiling for
_BLOCK_WEIGHTS = np.arange(_BLOCK, dtype=np.uint32) * np.uint32(_POSITION)


def compute_checksums(tree: PyTree) -> dict[str, str]:
    """Return the type and checksum of every array of a tree, "float32:0123abcd", by its dotted path.

    Args:
        tree: arrays of JAX, of which every process of a run has its part, or of NumPy, of which it has all.
    """
    leaves = jax.tree.leaves_with_path(tree)
    partial = [_sum_shards(x) if isinstance(x, jax.Array) else _sum_host(x, (0,) * x.ndim, x.shape) for _, x in leaves]
    sums = np.asarray(jax.device_get(partial), np.uint32).reshape(-1)
    if jax.process_count() > 1 and any(isinstance(x, jax.Array) for _, x in leaves):
        sums = np.asarray(multihost_utils.process_allgather(sums)).sum(axis=0, dtype=np.uint32)
    return {dotted_path(path): f"{x.dtype}:{value:08x}" for (path, x), value in zip(leaves, sums, strict=True)}


def find_damaged(tree: PyTree, recorded: Mapping[str, Any]) -> list[str]:
    """Return the dotted paths of arrays whose checksum is not the recorded one, or is not recorded.

    An array that was stored in another type, and is read in a wider one, is checked in the type that it was stored in.
    """

    def as_stored(path: tuple[Any, ...], x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        dtype = str(recorded.get(dotted_path(path))).partition(":")[0]
        return x if dtype == x.dtype or dtype not in _TYPES else x.astype(dtype)

    computed = compute_checksums(jax.tree.map_with_path(as_stored, tree))
    return [path for path, value in computed.items() if recorded.get(path) != value]


def checksum_json(value: Any) -> str:
    """Return the hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_TYPES = ("float32", "bfloat16", "float16")


def dotted_path(path: tuple[Any, ...]) -> str:
    """Return the name of an array in a tree, by its key path: "params.blocks.0"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _sum_shards(x: jax.Array) -> UInt32[jax.Array, ""] | np.uint32:
    """Return the sum over the shards of an array that this process has, each once."""
    shards = [shard for shard in x.addressable_shards if shard.replica_id == 0]
    starts = [tuple(part.start or 0 for part in shard.index) for shard in shards]
    sums = [_sum_shard(shard.data, start, x.shape) for shard, start in zip(shards, starts, strict=True)]
    return sums[0] if len(sums) == 1 else np.asarray(jax.device_get(sums), np.uint32).sum(dtype=np.uint32)


def _sum_shard(data: jax.Array, start: tuple[int, ...], shape: tuple[int, ...]) -> UInt32[jax.Array, ""] | np.uint32:
    if data.device.platform == "cpu" and data.nbytes < _MIN_COMPILED_BYTES:
        return _sum_host(np.asarray(data), start, shape)
    return _sum_device(data, start, shape)


def _sum_host(x: Shaped[np.ndarray, "..."], start: tuple[int, ...], shape: tuple[int, ...]) -> np.uint32:
    """Return the sum over a part of an array of a shape that begins at an index."""
    assert x.dtype.itemsize <= 4, x.dtype
    bits, whole = np.ascontiguousarray(x).reshape(-1).view(f"u{x.dtype.itemsize}"), x.shape == shape
    weights = None if whole else _weights(np, x.shape, start, shape).reshape(-1)
    total = np.uint32(0)
    with np.errstate(over="ignore"):
        for begin in range(0, bits.size, _BLOCK):
            part = bits[begin : begin + _BLOCK]
            if whole:
                weights_here = _BLOCK_WEIGHTS[: part.size] + np.uint32(begin * _POSITION % 2**32)
            else:
                weights_here = weights[begin : begin + _BLOCK]
            total += _mix(part.astype(np.uint32, copy=False), weights_here).sum(dtype=np.uint32)
    return total


@jax.jit(static_argnums=2)
def _sum_device(x: Shaped[jax.Array, "..."], start: tuple[Any, ...], shape: tuple[int, ...]) -> UInt32[jax.Array, ""]:
    """As `_sum_host`, on the device of the part."""
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    return _mix(bits, _weights(jnp, x.shape, start, shape)).sum(dtype=jnp.uint32)


def _weights(xp: Any, part: tuple[int, ...], start: Any, shape: tuple[int, ...]) -> UInt32[Any, "..."]:
    """Return the position of every element of a part in the whole array, times `_POSITION`, modulo 2^32."""
    positions, stride = xp.zeros(part, xp.uint32), 1
    for axis in reversed(range(len(shape))):
        along = (xp.arange(part[axis], dtype=xp.uint32) + xp.uint32(start[axis])) * xp.uint32(stride % 2**32)
        positions = positions + along.reshape([-1 if each == axis else 1 for each in range(len(shape))])
        stride *= shape[axis]
    return positions * xp.uint32(_POSITION)


def _mix(bits: Any, weights: Any) -> Any:
    mixed = (bits ^ weights) * np.uint32(_BITS)
    return mixed ^ (mixed >> np.uint32(15))
