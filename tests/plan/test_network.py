"""Seconds of collectives against bytes and links counted by hand."""

import itertools

import pytest

from videodit.parallel.chips import CHIPS
from videodit.plan.hlo_counts import Collective
from videodit.plan.network import DeviceCoords, Network

CHIP = {chip.name: chip for chip in CHIPS}
SIZE = 10**9


def build_network(name: str, *shape: int, slices: int = 1) -> Network:
    """Return a network with devices ordered by slice, chip, core."""
    chip = CHIP[name]
    coords = itertools.product(range(slices), itertools.product(*map(range, shape)), range(chip.devices))
    return Network(chip, tuple(DeviceCoords(*each) for each in coords))


def collective(group, kind="all-gather"):
    n = len(group)
    sizes = {"all-gather": (SIZE, n * SIZE), "reduce-scatter": (n * SIZE, SIZE), "all-reduce": (n * SIZE, n * SIZE)}
    return Collective(kind, (tuple(group),), *sizes[kind])


@pytest.mark.parametrize(
    ("shape", "group", "links"),
    [
        ((2, 2, 1), (0, 1), 1),  # neighbors, a single link
        ((2, 2, 1), (0, 1, 2, 3), 2),  # a line along each axis
        ((4, 4, 4), (0, 1, 2, 3), 2),  # a ring, both directions
        ((4, 4, 4), range(64), 6),  # all links of a torus
        ((8, 4, 4), (0, 1), 1),  # a part of an axis is no ring
        ((4, 4, 4), (0, 2), 1),  # a ring of every other chip shares each link with the other ring
        ((8, 4, 4), (0, 32, 64, 96), 1),  # of a line of 8, every other chip: of 4, a ring with links of half
        ((2, 2, 4), range(16), 3),  # no ring in less than a cube of 4
    ],
)
def test_a_group_receives_over_all_its_links(shape, group, links):
    net = build_network("v5p", *shape)
    seconds = (len(group) - 1) * SIZE / (links * net.chip.link_bandwidth)
    assert net.seconds(collective(group)) == pytest.approx(seconds)
    assert net.seconds(collective(group, "reduce-scatter")) == pytest.approx(seconds)
    assert net.seconds(collective(group, "all-reduce")) == pytest.approx(2 * seconds)


def test_axes_of_16_are_rings_in_2d():
    ring, line = build_network("v5e", 16, 16, 1), build_network("v5e", 8, 8, 1)
    row = range(8), range(16)
    assert line.seconds(collective(row[0])) == pytest.approx(7 * SIZE / 50e9)
    assert ring.seconds(collective(row[1])) == pytest.approx(15 * SIZE / 100e9)


@pytest.mark.parametrize(("shape", "ring"), [((4, 4, 4), True), ((4, 1, 1), False), ((8, 4, 4), True)])
def test_all_to_all_is_bound_by_the_bisection(shape, ring):
    """Half of a ring sends a quarter of all bytes to the other half, over two links in each direction."""
    net = build_network("v5p", *shape)
    stride = len(net.coords) // shape[0]
    group = tuple(range(0, len(net.coords), stride))
    n = len(group)
    cut = n / 2 * n / 2 * (SIZE / n) / (2 if ring else 1)
    seconds = net.seconds(Collective("all-to-all", (group,), SIZE, SIZE))
    assert seconds == pytest.approx(cut / net.chip.link_bandwidth)


def test_a_cyclic_permute_uses_every_link_once():
    net = build_network("v5p", 4, 4, 4)
    pairs = tuple((i, (i + 1) % 4) for i in range(4))
    assert net.seconds(Collective("collective-permute", pairs, SIZE, SIZE)) == pytest.approx(SIZE / 100e9)
    line = build_network("v5p", 2, 2, 1)
    cycle = ((0, 1), (1, 3), (3, 2), (2, 0))
    assert line.seconds(Collective("collective-permute", cycle, SIZE, SIZE)) == pytest.approx(SIZE / 100e9)


def test_two_cores_share_a_chip_s_links():
    net = build_network("tpu7x", 4, 4, 4)
    assert net.seconds(collective((0, 1))) == pytest.approx(SIZE / 600e9)
    ring = (0, 2, 4, 6)  # the first cores of four chips; the second ones have their own group
    assert net.seconds(collective(ring)) == pytest.approx(2 * 3 * SIZE / 200e9)
    both = 2 * 3 * SIZE / 200e9 + 4 * SIZE / 600e9
    assert net.seconds(collective(range(8))) == pytest.approx(both)


def test_slices_are_joined_by_the_slower_network():
    net = build_network("v5e", 2, 2, 1, slices=2)
    across = net.seconds(collective((0, 4), "all-reduce"))
    assert across == pytest.approx(2 * SIZE / net.chip.dcn_bandwidth)
    assert net.seconds(Collective("collective-permute", ((0, 4),), SIZE, SIZE)) == pytest.approx(across / 2)


def test_groups_that_form_no_grid_have_one_link():
    net = build_network("v5p", 4, 4, 4)
    assert net.seconds(collective((0, 1, 5))) == pytest.approx(2 * SIZE / 100e9)


def test_the_slowest_group_counts():
    net = build_network("v5p", 4, 4, 4)
    mixed = Collective("all-gather", ((0, 1), (0, 4, 16)), SIZE, 2 * SIZE)
    assert net.seconds(mixed) == pytest.approx(2 * SIZE / 100e9)
