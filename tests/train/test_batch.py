import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from tests.train.toy import ToyLoader, host_batch, with_padding
from videodit.models.pixels import to_float
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.batch import local_indices, to_devices
from videodit.train.device_prefetcher import DevicePrefetcher


def batch_sharding():
    return NamedSharding(make_mesh(MeshConfig()), PartitionSpec("data"))


def test_batches_arrive_in_order_over_the_devices():
    batches = DevicePrefetcher(ToyLoader(), batch_sharding())
    for number in range(3):
        batch, host = next(batches), host_batch(number, 8)
        np.testing.assert_array_equal(batch.batch.video, host.arrays.video)
        np.testing.assert_array_equal(batch.batch.text_mask, host.arrays.text_mask)
        assert batch.batch.video.addressable_shards[0].data.shape[0] == 1
        assert batch.clip_ids == host.clip_ids
        assert batch.batch.latent_mean is None


def test_the_state_is_that_of_the_last_batch_returned_not_of_prefetched_ones():
    loader = ToyLoader()
    batches = DevicePrefetcher(loader, batch_sharding())
    assert batches.state == {"number": 0}
    for number in range(1, 4):
        next(batches)
        assert batches.state == {"number": number} == loader.get_state()
        batches.prefetch()
        batches.prefetch()
        assert batches.state == {"number": number}
        assert loader.number == number + 1, "one batch ahead, not two"


def test_a_prefetched_batch_is_returned_next():
    batches, plain = (DevicePrefetcher(ToyLoader(end=3), batch_sharding()) for _ in range(2))
    for batch in batches:
        assert batch.clip_ids == next(plain).clip_ids
        batches.prefetch()
    assert next(plain, None) is None


def test_every_batch_of_a_finite_loader_is_returned():
    batches = DevicePrefetcher(ToyLoader(end=3), batch_sharding())
    assert [batch.iterator_state["number"] for batch in batches] == [1, 2, 3]


def test_padding_entries_of_a_batch_are_marked():
    host = with_padding(host_batch(0, 4), ("a", "", "c", ""))
    whole = NamedSharding(make_mesh(MeshConfig()), PartitionSpec())
    assert to_devices(host, whole).valid.tolist() == [True, False, True, False]


def test_a_process_serves_the_batch_entries_of_its_devices():
    """The only process serves all of them; a process that does not exist, none."""
    sharding = NamedSharding(make_mesh(MeshConfig(data=4, context=2)), PartitionSpec("data"))
    assert local_indices(8, sharding) == tuple(range(8))
    assert local_indices(8, sharding, process=1) == ()


def test_bytes_and_short_floats_become_what_models_take():
    levels = np.arange(256, dtype=np.uint8)
    for array in (levels, jnp.asarray(levels)):
        pixels = to_float(array)
        assert pixels.dtype == np.float32 and pixels[0] == -1 and pixels[255] == 1
        np.testing.assert_array_equal(np.rint((np.asarray(pixels) + 1) * 127.5), levels)
    floats = np.linspace(-1, 1, 5, dtype=np.float32)
    assert to_float(floats) is floats
