"""Topologies by name."""

import subprocess
import sys

import pytest

from videodit.plan.topology import Topology


@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [
        ("v5e:2x2", 4, 4),
        ("v5p:4x4x8", 128, 128),
        ("tpu7x:2x2x1", 4, 8),
        ("2*v6e:16x16", 512, 512),
        ("3*tpu7x:4x4x4", 192, 384),
        ("cpu:8", 8, 8),
    ],
)
def test_names_determine_chips_and_devices(name, chips, devices):
    topology = Topology.parse(name)
    assert (topology.num_chips, topology.num_devices) == (chips, devices)
    assert (topology.chip is None) == name.startswith("cpu")


@pytest.mark.parametrize(
    "name", ["v5p", "v9:2x2", "v5e:0x2", "v5e:2x", "0*v5e:2x2", "2*cpu:4", "cpu:2x2", "h100:8", ""]
)
def test_invalid_names_are_refused_with_an_example(name):
    with pytest.raises(ValueError, match=f"there is no topology '{name.replace('*', '.')}': write CHIP:NxN, like"):
        Topology.parse(name)


@pytest.mark.parametrize("name", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_libtpu_has_as_many_devices(tpu_compiler, name):
    topology = Topology.parse(name)
    code = f"from videodit.plan.topology import Topology; print(len(Topology.parse({name!r}).devices()))"
    process = subprocess.run([sys.executable, "-c", code], env=topology.environment(), capture_output=True, text=True)
    assert process.stdout.split() == [str(topology.num_devices)], process.stderr[-500:]
