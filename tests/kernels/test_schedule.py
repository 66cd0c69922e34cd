"""Reading what libtpu writes, and what is said when it cannot be had."""

import importlib.util

import numpy as np
import pytest
from videodit_kernels import schedule

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
    units, capacity, used = schedule._slots(tmp_path / "a")
    assert units == ["MATMUL", "VALU", "VSTORE", "VSTORE:SPILL"]
    np.testing.assert_array_equal(capacity, [4, 4, 1, 1])
    assert used.shape == (5, 4)
    assert schedule._body(tmp_path / "b", len(used)) == (1, 4)


def test_a_report_counts_every_operation_but_those_set_aside(tmp_path):
    for name, cycles in (("kernel.1", 800), ("fusion.7", 100), ("forward.2", 5000)):
        text = f'hlo_op_estimate {{\n  hlo_op_name: "{name}"\n  estimated_cycles: {cycles}\n}}'
        (tmp_path / f"{name}.textproto").write_text(text)
    (tmp_path / "12-kernel.1-01-final_hlo-static-per-bundle-utilization.txt").write_text(UTILIZATION)
    (tmp_path / "12-kernel.1-03-final_bundles.txt").write_text(BUNDLES)
    chip = schedule.Chip("", ghz=1.0, flops=1000, cores=2)
    report = schedule._read(tmp_path, tmp_path, chip, "kernel", flops=450_000, steps=10, aside="forward")
    assert (report.cycles, report.step_cycles, report.bundles, report.spills) == (900, 180.0, 3, 1)
    assert report.share == pytest.approx(0.5) and report.tflops == pytest.approx(0.5)
    assert report.binding == "MATMUL" and report.busy["MATMUL"] == pytest.approx(10 / 12)


def test_an_unknown_chip_is_named_beside_those_there_are(capsys):
    with pytest.raises(SystemExit):
        schedule.main(["--chip", "v5e,v9"])
    assert "no chip v9; there are v5e, v5p, v6e, tpu7x" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_libtpu_one_sentence_says_so():
    with pytest.raises(RuntimeError, match="libtpu"):
        schedule.simulate("videodit_kernels.attention.simulated:ours", {}, "v5e")
