import subprocess
import sys

import jax
import pytest

from videodit.parallel.mesh import AXES, MeshConfig, make_mesh


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({}, (8, 1, 1, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1, 1, 1)),
        ({"data": 2, "fsdp": -1}, (2, 4, 1, 1, 1)),
        ({"data": 1, "fsdp": 2, "tensor": -1}, (1, 2, 1, 1, 4)),
    ],
)
def test_a_size_left_open_takes_the_devices_that_remain(config, sizes):
    mesh = make_mesh(MeshConfig(**config))
    assert mesh.axis_names == AXES and tuple(mesh.shape.values()) == sizes
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize(
    ("config", "heads", "ring", "ulysses"),
    [
        ({"context": 8}, 12, 2, 4),
        ({"context": 8}, 7, 8, 1),
        ({"context": 4, "tensor": 2}, 12, 2, 2),
        ({"context": 4, "tensor": 2}, 3, 4, 1),
        ({"context": -1, "ulysses": 2}, 12, 4, 2),
        ({"context": 8, "ulysses": 1}, 16, 8, 1),
    ],
)
def test_as_many_devices_exchange_tokens_as_the_heads_allow_unless_set(config, heads, ring, ulysses):
    shape = make_mesh(MeshConfig(**{"data": 1, **config}), heads=heads).shape
    assert (shape["ring"], shape["ulysses"]) == (ring, ulysses)


def test_a_mesh_may_use_some_of_the_devices():
    devices = jax.devices()[2:4]
    assert list(make_mesh(MeshConfig(), devices).devices.flat) == devices


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            {"data": 1, "context": 8, "ulysses": 3},
            r"ulysses=3 does not divide .* context=8 and 16 heads .*; 1, 2, 4, 8 w",
        ),
        ({"data": 1, "context": 4, "tensor": 2, "ulysses": 8}, r"ulysses=8 .* over tensor=2; 1, 2, 4 would"),
        ({"data": 3}, r"a mesh of data=3, fsdp=1, .* does not fit 8 devices"),
        ({"data": 2, "fsdp": 2}, r"a mesh of data=2, fsdp=2, .* does not fit 8 devices"),
        ({"fsdp": 3}, r"a mesh of data=-1, fsdp=3, .* does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, r"at most one of a mesh's sizes is -1"),
        ({"data": 0}, r"^data is 0: it must be from -1 to 16777216, but not 0$"),
    ],
)
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(config, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_mesh(MeshConfig(**config), heads=16)


def test_the_batch_alone_goes_across_slices(tpu_compiler):
    """The target topology has two slices of four chips."""
    program = """
from jax.experimental.topologies import get_topology_desc
from videodit.parallel.mesh import MeshConfig, make_mesh
two = get_topology_desc(platform="tpu", topology_name="v5e:2x2", num_slices=2).devices
mesh = make_mesh(MeshConfig(data=-1, context=2), two)
print(mesh.shape["data"], *(device.slice_index for device in mesh.devices.flat))
try:
    make_mesh(MeshConfig(data=1, fsdp=8), two)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], env=tpu_compiler, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "4 0 0 0 0 1 1 1 1",
        "mesh axis data=1 does not divide over 2 slices: only it goes across them",
    ]
