"""Rooflines of counts against seconds computed by hand."""

from collections import Counter

import pytest
from videodit_kernels.attention.tpu.tuned import load_table, peak_share

from videodit.parallel.chips import CHIPS
from videodit.plan.hlo import Shape
from videodit.plan.hlo_counts import Collective, Counts, Kernel
from videodit.plan.network import DeviceCoords, Network
from videodit.plan.roofline import attention_flops, compute_roofline, hardware_flops

V5P = next(chip for chip in CHIPS if chip.name == "v5p")
TPU7X = next(chip for chip in CHIPS if chip.name == "tpu7x")


def roofline_of(counts: Counts, chip=V5P):
    coords = [DeviceCoords(0, (x, 0, 0), core) for x in range(2) for core in range(chip.devices)]
    return compute_roofline(counts, chip, Network(chip, tuple(coords)))


def attention_kernel(which="fwd", queries=16384, keys=16384):
    q, k = (Shape("bf16", (1, 10, n, 128), 0) for n in (queries, keys))
    labels, rows = Shape("s32", (1, 8, queries), 0), Shape("f32", (1, 10, 1, queries), 0)
    return Kernel(f"videodit_attention_{which}", (labels, q, k, k), (q, rows))


def test_a_product_is_bound_by_its_flops_or_by_its_bytes():
    roofline = roofline_of(Counts(products=Counter({(459 * 10**12, 1): 2, (1, 2765 * 10**9): 1})))
    assert roofline.matmul == pytest.approx(2 + 1)
    assert roofline.hbm_busy == pytest.approx(1)
    assert (roofline.attention, roofline.hbm, roofline.host, roofline.collectives) == (0, 0, 0, {})


def test_attention_runs_at_its_simulated_share_of_the_peak():
    flops = {"fwd": 2, "bwd": 5}
    for which, products in flops.items():
        kernel = attention_kernel(which)
        assert attention_flops(kernel) == products * 2 * 10 * 16384**2 * 128
        simulated = {"fwd": 0.968, "bwd": 0.979}[which]
        seconds = attention_flops(kernel) / (simulated * 459e12)
        assert roofline_of(Counts(kernels=Counter({kernel: 3}))).attention == pytest.approx(3 * seconds)


def test_other_operations_are_bound_by_bytes():
    norm = Kernel("videodit_adaln_fwd", (Shape("bf16", (1000, 1000), 0), Shape("f32", (9,), 1)), ())
    roofline = roofline_of(Counts(other_bytes=10**9, kernels=Counter({norm: 5})))
    assert roofline.hbm == pytest.approx((10**9 + 5 * 2 * 10**6) / 2765e9)
    assert hardware_flops(Counts(kernels=Counter({norm: 5}))) == 0


def test_devices_of_a_chip_share_its_resources():
    counts = Counts(products=Counter({(10**15, 0): 1}), other_bytes=10**12, host_bytes=10**9)
    roofline = roofline_of(counts, TPU7X)
    assert roofline.matmul == pytest.approx(2 * 10**15 / 2307e12)
    assert roofline.hbm == pytest.approx(2 * 10**12 / 7380e9)
    assert roofline.host == pytest.approx(2 * 10**9 / 15e9)


def test_no_overlap_and_full_overlap():
    pair = Collective("all-reduce", ((0, 1),), 10**11, 10**11)
    counts = Counts(products=Counter({(459 * 10**12, 0): 3}), other_bytes=2765 * 10**9, collectives=Counter({pair: 4}))
    roofline = roofline_of(counts)
    # Reduce-scatter and all-gather, half of the bytes each, over one link.
    assert roofline.collectives == {"all-reduce": pytest.approx(4.0)}
    assert roofline.no_overlap == pytest.approx(3 + 1 + 4)
    assert roofline.full_overlap == pytest.approx(4)


def test_peak_shares_interpolate_the_simulations():
    for row in load_table():
        for which in ("forward", "backward"):
            assert peak_share(row["chip"], which, row["head_dim"], row["seq"]) == pytest.approx(row[which])
            speeds = [peak_share(row["chip"], which, row["head_dim"], n) for n in (512, 4096, 8192, 16384, 10**6)]
            assert speeds == sorted(speeds) and speeds[-1] == speeds[-2]
    assert peak_share("v4", "forward", 128, 4096) == peak_share("v5p", "forward", 128, 4096)
    with pytest.raises(ValueError, match="attention was not simulated on h100: it was on tpu7x, v4, v5e, v5p, v6e"):
        peak_share("h100", "forward", 128, 4096)


@pytest.mark.parametrize(("queries", "keys"), [(16384, 16384), (4096, 48), (64, 64)])
def test_full_overlap_is_never_slower(queries, keys):
    """Also if few keys make attention memory-bound."""
    kernels = Counter({attention_kernel("fwd", queries, keys): 2, attention_kernel("bwd", queries, keys): 1})
    roofline = roofline_of(Counts(kernels=kernels, products=Counter({(10**12, 10**9): 1}), other_bytes=10**9))
    assert 0 < roofline.full_overlap <= roofline.no_overlap


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e", "tpu7x"])
def test_small_heads_reach_a_lower_share(chip):
    dims = sorted({row["head_dim"] for row in load_table() if row["chip"] == chip} or {64, 128})
    for dim in dims:
        whole = peak_share(chip, "forward", dim, 16384)
        assert peak_share(chip, "forward", dim // 2 + 8, 16384) <= whole
    assert peak_share(chip, "forward", 72, 16384) == pytest.approx(peak_share(chip, "forward", 128, 16384) * 72 / 128)
