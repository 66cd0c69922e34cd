"""A batch on the devices, made from the numpy arrays of the data iterator."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Sharding
from videodit_data.reading.batch import Batch, HostBatch

from videodit.pytrees import register_arrays

register_arrays(Batch)


def local_indices(batch_size: int, sharding: Sharding, process: int | None = None) -> tuple[int, ...]:
    """Return the indices of a batch that the devices of a process hold: what its data iterator has to serve.

    Processes whose devices share clips serve the same indices.

    Args:
        process: this one if None.
    """
    process = jax.process_index() if process is None else process
    slices = sharding.devices_indices_map((batch_size,))
    ranges = [range(batch_size)[at] for device, (at,) in slices.items() if device.process_index == process]
    return tuple(sorted(set().union(*ranges)))


def to_devices(host: HostBatch, sharding: Sharding) -> Batch[jax.Array]:
    """Return a batch as global arrays, sharded; this process has the `local_indices` of it."""
    # As many rows as there are devices always divide.
    devices = len(sharding.device_set)
    size = host.arrays.size * devices // len(local_indices(devices, sharding))
    positions = {index: position for position, index in enumerate(local_indices(size, sharding))}
    return jax.tree.map(lambda x: _to_global(x, size, positions, sharding), host.arrays)


def _to_global(array: np.ndarray, size: int, positions: Mapping[int, int], sharding: Sharding) -> jax.Array:
    """Return the global array of `size` rows, of which `array` has those whose positions in it are given."""

    def shard(index: tuple[slice, ...]) -> np.ndarray:
        rows = range(size)[index[0]]
        return array[positions[rows[0]] : positions[rows[-1]] + 1]

    return jax.make_array_from_callback((size, *array.shape[1:]), sharding, shard)
