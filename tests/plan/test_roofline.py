"""Times of counts that can be worked out by hand."""

from collections import Counter

import pytest
from videodit_kernels.attention.tpu.tuned import load_table, peak_share

from videodit.parallel.chips import CHIPS
from videodit.plan.count import Collective, Counts, Kernel
from videodit.plan.hlo import Shape
from videodit.plan.network import Network, Place
from videodit.plan.roofline import attention_flops, hardware_flops, roofline

V5P = next(chip for chip in CHIPS if chip.name == "v5p")
TPU7X = next(chip for chip in CHIPS if chip.name == "tpu7x")


def line(counts: Counts, chip=V5P):
    places = [Place(0, (x, 0, 0), core) for x in range(2) for core in range(chip.devices)]
    return roofline(counts, chip, Network(chip, tuple(places)))


def attention(which="fwd", queries=16384, keys=16384):
    q, k = (Shape("bf16", (1, 10, n, 128), 0) for n in (queries, keys))
    labels, rows = Shape("s32", (1, 8, queries), 0), Shape("f32", (1, 10, 1, queries), 0)
    return Kernel(f"videodit_attention_{which}", (labels, q, k, k), (q, rows))


def test_a_product_is_bound_by_its_flops_or_by_its_bytes():
    found = line(Counts(products=Counter({(459 * 10**12, 1): 2, (1, 2765 * 10**9): 1})))
    assert found.matmul == pytest.approx(2 + 1)
    assert found.hbm_busy == pytest.approx(1)
    assert (found.attention, found.hbm, found.host, found.collectives) == (0, 0, 0, {})


def test_attention_runs_at_its_simulated_share_of_the_peak():
    flops = {"fwd": 2, "bwd": 5}
    for which, products in flops.items():
        kernel = attention(which)
        assert attention_flops(kernel) == products * 2 * 10 * 16384**2 * 128
        simulated = {"fwd": 0.968, "bwd": 0.979}[which]
        seconds = attention_flops(kernel) / (simulated * 459e12)
        assert line(Counts(kernels=Counter({kernel: 3}))).attention == pytest.approx(3 * seconds)


def test_other_kernels_and_all_else_move_bytes():
    norm = Kernel("videodit_adaln_fwd", (Shape("bf16", (1000, 1000), 0), Shape("f32", (9,), 1)), ())
    found = line(Counts(other_bytes=10**9, kernels=Counter({norm: 5})))
    assert found.hbm == pytest.approx((10**9 + 5 * 2 * 10**6) / 2765e9)
    assert hardware_flops(Counts(kernels=Counter({norm: 5}))) == 0


def test_devices_of_one_chip_share_what_it_has():
    counts = Counts(products=Counter({(10**15, 0): 1}), other_bytes=10**12, host_bytes=10**9)
    found = line(counts, TPU7X)
    assert found.matmul == pytest.approx(2 * 10**15 / 2307e12)
    assert found.hbm == pytest.approx(2 * 10**12 / 7380e9)
    assert found.host == pytest.approx(2 * 10**9 / 15e9)


def test_the_ends_of_the_range():
    pair = Collective("all-reduce", ((0, 1),), 10**11, 10**11)
    counts = Counts(products=Counter({(459 * 10**12, 0): 3}), other_bytes=2765 * 10**9, collectives=Counter({pair: 4}))
    found = line(counts)
    assert found.collectives == {"all-reduce": pytest.approx(4.0)}  # there and back, a half each, over one link
    assert found.no_overlap == pytest.approx(3 + 1 + 4)
    assert found.full_overlap == pytest.approx(4)


def test_shares_meet_what_was_simulated_and_never_pass_it():
    for row in load_table():
        for which in ("forward", "backward"):
            assert peak_share(row["chip"], which, row["head_dim"], row["seq"]) == pytest.approx(row[which])
            speeds = [peak_share(row["chip"], which, row["head_dim"], n) for n in (512, 4096, 8192, 16384, 10**6)]
            assert speeds == sorted(speeds) and speeds[-1] == speeds[-2]
    assert peak_share("v4", "forward", 128, 4096) == peak_share("v5p", "forward", 128, 4096)
    with pytest.raises(ValueError, match="attention was not simulated on h100: it was on tpu7x, v4, v5e, v5p, v6e"):
        peak_share("h100", "forward", 128, 4096)


@pytest.mark.parametrize(("queries", "keys"), [(16384, 16384), (4096, 48), (64, 64)])
def test_everything_at_once_is_never_slower_than_one_after_another(queries, keys):
    """Also where attention is bound by what it reads, because there are few keys."""
    kernels = Counter({attention("fwd", queries, keys): 2, attention("bwd", queries, keys): 1})
    found = line(Counts(kernels=kernels, products=Counter({(10**12, 10**9): 1}), other_bytes=10**9))
    assert 0 < found.full_overlap <= found.no_overlap


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e", "tpu7x"])
def test_a_head_that_leaves_the_unit_idle_is_slower(chip):
    dims = sorted({row["head_dim"] for row in load_table() if row["chip"] == chip} or {64, 128})
    for dim in dims:
        whole = peak_share(chip, "forward", dim, 16384)
        assert peak_share(chip, "forward", dim // 2 + 8, 16384) <= whole
    assert peak_share(chip, "forward", 72, 16384) == pytest.approx(peak_share(chip, "forward", 128, 16384) * 72 / 128)
