"""Parsing of the files that libtpu's simulator writes, and the errors without it."""

import importlib.util
import json
import os

import numpy as np
import pytest
from videodit_kernels import norm_performance, schedule, simulator
from videodit_kernels.attention import performance, simulated
from videodit_kernels.attention.tpu import tuned
from videodit_kernels.attention.tpu.common import Blocks

UTILIZATION = """== CAPACTIY:
MATMUL, VALU, VSTORE, VSTORE:SPILL
    4     4     1     1
== UTILIZATION:
0 0 0 0
4 1 0 0
4 2 1 1
2 1 0 0
0 0 1 0
"""

BUNDLES = """header
     0   :  { %p0 = nop }
   0x1 LB: > { %p1 = vmatmul.bf16 }
   0x2   : > { %p2 = vmatmul.bf16
   %p3 = vst }
   0x3   : > { %p4 = sbr.rel (%p9) target = $region3 }
   0x4   :  { %p5 = vst }
"""


def test_the_tile_s_body_is_the_longest_run_without_a_branch(tmp_path):
    (tmp_path / "a").write_text(UTILIZATION)
    (tmp_path / "b").write_text(BUNDLES)
    units, capacity, used = simulator._read_slots(tmp_path / "a")
    assert units == ["MATMUL", "VALU", "VSTORE", "VSTORE:SPILL"]
    np.testing.assert_array_equal(capacity, [4, 4, 1, 1])
    assert used.shape == (5, 4)
    assert simulator._find_body(tmp_path / "b", len(used)) == (1, 4)


def test_a_report_counts_every_operation_but_those_excluded(tmp_path):
    for name, cycles in (("kernel.1", 800), ("fusion.7", 100), ("forward.2", 5000)):
        text = f'hlo_op_estimate {{\n  hlo_op_name: "{name}"\n  estimated_cycles: {cycles}\n}}'
        (tmp_path / f"{name}.textproto").write_text(text)
    (tmp_path / "12-kernel.1-01-final_hlo-static-per-bundle-utilization.txt").write_text(UTILIZATION)
    (tmp_path / "12-kernel.1-03-final_bundles.txt").write_text(BUNDLES)
    chip = simulator.Chip("", ghz=1.0, flops=1000, cores=2)
    report = simulator._read(tmp_path, tmp_path, chip, "kernel", flops=450_000, steps=10, excluded_prefix="forward")
    assert (report.cycles, report.step_cycles, report.bundles, report.spills) == (900, 180.0, 3, 1)
    assert report.share == pytest.approx(0.5) and report.tflops == pytest.approx(0.5)
    assert report.binding == "MATMUL" and report.busy["MATMUL"] == pytest.approx(10 / 12)


def test_an_unknown_chip_is_named_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        schedule.main(["--chip", "v5e,v9"])
    assert "no chip v9; there are v5e, v5p, v6e, tpu7x" in capsys.readouterr().err


def test_the_simulator_is_deterministic(tpu_compiler, monkeypatch):
    for name, value in tpu_compiler.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(tpu_compiler["PYTHONPATH"].split(os.pathsep)[0])
    shape = {"which": "fwd", "seq": 512, "dim": 64, "heads": 1, "blocks": [256, 256, 128, 128, 128]}
    plain, again, masked = (
        simulated.simulate_kernel("build_ours", "v5e", **shape, **more)
        for more in ({}, {}, {"mask": "FrameCausal(100)"})
    )
    assert plain == again and plain.cycles < masked.cycles
    assert plain.share == pytest.approx(4 * 512**2 * 64 / 131072 / plain.cycles)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_error_is_one_sentence():
    with pytest.raises(RuntimeError, match="libtpu"):
        simulator.simulate("videodit_kernels.attention.simulated:build_ours", {}, "v5e")


def test_block_sizes_are_those_of_the_next_head_dim_and_the_nearest_length_that_were_tuned(monkeypatch):
    def row(dim, seq, q, chip="v5e"):
        return {"chip": chip, "head_dim": dim, "seq": seq, **Blocks(q=q)._asdict(), "forward": 0.5, "backward": 0.5}

    rows = (row(64, 4096, 1), row(128, 4096, 2), row(128, 16384, 3), row(64, 4096, 4, "v6e"))
    monkeypatch.setattr(tuned, "load_table", lambda: rows)
    for dim, seq, q in ((64, 9000, 1), (80, 9000, 2), (128, 100, 2), (128, 16384, 3), (128, 300_000, 3)):
        assert tuned.lookup_blocks("v5e", dim, seq).q == q
    assert tuned.lookup_blocks("v6e", 128, 4096) == tuned.lookup_blocks(None, 64, 4096) == Blocks()


def test_the_committed_table_is_for_chips_there_are_and_blocks_that_divide():
    assert set(tuned.KINDS.values()) == set(simulator.CHIPS)
    for row in tuned.load_table():
        blocks = tuned.lookup_blocks(row["chip"], row["head_dim"], row["seq"])
        assert row["chip"] in simulator.CHIPS and 0 < row["forward"] < 1 and 0 < row["backward"] < 1
        assert blocks.kv % blocks.keys == blocks.q % blocks.d_queries == blocks.kv % blocks.d_keys == 0


def test_the_cost_of_a_mask_is_its_blocks_times_their_cycles(monkeypatch, capsys):
    def run(name, chip, which, seq, dim, heads, blocks, mask=None, mask_seq=None, spare=192):
        assert (name, chip, seq, dim, heads, spare) == ("build_ours", "v6e", 4096, 64, 1, 192)
        return simulator.Report(0, 1000.0 if mask is None else 1200.0, 0.0, 0.0, 0, 0, {})

    monkeypatch.setattr(simulated, "simulate_kernel", run)
    monkeypatch.setattr(performance, "lookup_blocks", lambda *_: Blocks(1024, 1024))
    problem = ["--chip", "v6e", "--head-dim", "64", "--seq", "8192", "--pass", "fwd", "--json"]
    schedule.main([*problem, "--mask", "FrameCausal(1024)"])
    # 8 x 8 blocks, those on the diagonal and below it whole.
    row = json.loads(capsys.readouterr().out)
    assert (row["kept"], row["partial"], row["time"]) == pytest.approx((36 / 64, 0, 36 / 64))
    schedule.main([*problem, "--mask", "FrameCausal(512)"])
    row = json.loads(capsys.readouterr().out)
    assert (row["kept"], row["partial"], row["time"]) == pytest.approx((36 / 64, 8 / 64, (28 + 8 * 1.2) / 64))
    with pytest.raises(SystemExit):
        schedule.main(["--mask", "LocalWindow((4, 4, 4), (2, 2, 2), (1, 1, 1))"])
    assert "is for 64 tokens, got 16384" in capsys.readouterr().err


def test_norm_kernels_are_compared_with_xla(monkeypatch, capsys):
    def cycles(builder, arguments, chip):
        assert builder == "videodit_kernels.adaln.simulated:build_kernel" and chip == "v6e"
        if not arguments["ours"]:
            raise RuntimeError("the simulator gave up")
        return 175_000 * (1 if arguments["which"] == "fwd" else 2)

    monkeypatch.setattr(norm_performance, "simulate_cycles", cycles)
    schedule.main(["--op", "adaln", "--chip", "v6e"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[-4:] for line in lines[::2]] == [
        ["175000", "cycles", "0.100", "ms"],
        ["350000", "cycles", "0.200", "ms"],
    ]
    assert [line[-3:] for line in lines[1::2]] == [["simulator", "gave", "up"]] * 2
    with pytest.raises(SystemExit):
        schedule.main(["--op", "adaln", "--mask", "FrameCausal(4)"])
    assert "--mask and --tune are for attention, not for adaln" in capsys.readouterr().err
