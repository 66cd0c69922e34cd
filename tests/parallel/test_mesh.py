import jax
import pytest

from videodit.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize(
    ("config", "sizes"),
    [({}, (8, 1)), ({"fsdp": 4}, (2, 4)), ({"data": 2, "fsdp": -1}, (2, 4)), ({"data": 1, "fsdp": 8}, (1, 8))],
)
def test_a_size_left_open_takes_the_devices_that_remain(config, sizes):
    mesh = make_mesh(MeshConfig(**config))
    assert mesh.axis_names == ("data", "fsdp") and tuple(mesh.shape.values()) == sizes
    assert set(mesh.devices.flat) == set(jax.devices())


def test_a_mesh_may_use_some_of_the_devices():
    devices = jax.devices()[2:4]
    assert list(make_mesh(MeshConfig(), devices).devices.flat) == devices


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"data": 3}, r"a mesh of data=3, fsdp=1 does not fit 8 devices"),
        ({"data": 2, "fsdp": 2}, r"a mesh of data=2, fsdp=2 does not fit 8 devices"),
        ({"fsdp": 3}, r"a mesh of data=-1, fsdp=3 does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, r"at most one of them -1"),
        ({"data": 0}, r"mesh axes are positive sizes"),
    ],
)
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(config, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_mesh(MeshConfig(**config))
