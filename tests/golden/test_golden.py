"""Committed figures of the golden runs.

The first steps hold on any machine to 1e-5. Later ones drift where sums are ordered in another way (by other compilers
or vector units): Adam divides small gradients by their own size. `compare.py` demands equal bits, on one machine.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.figures import ALL_RUNS, make_figures

HERE = Path(__file__).parent
TREE = HERE.parents[1]
FIRST_STEPS = 5
EXPECTED = json.loads((HERE / "values.json").read_text())


@pytest.mark.parametrize(
    ("runs", "scores"),
    [
        pytest.param(["vae-1", "dit-1"], False, id="one device"),
        pytest.param(ALL_RUNS, True, id="all", marks=pytest.mark.slow),
    ],
)
def test_figures_are_those_that_were_committed(tmp_path, runs, scores):
    figures = make_figures(TREE, HERE / "configs.py", tmp_path, runs, scores=scores)
    assert set(figures) == {*runs, *(("samples", "scores") if scores else ())}
    for run in runs:
        for name in ("loss", "grad_norm", "heldout"):
            there, here = EXPECTED[run][name], figures[run][name]
            first = 0 if name == "heldout" else FIRST_STEPS
            np.testing.assert_allclose(here[:first], there[:first], rtol=1e-5, err_msg=f"{run} {name}")
            np.testing.assert_allclose(here, there, rtol=1e-3, err_msg=f"{run} {name}")
    if scores:
        means, expected = ([clip["mean"] for clip in source["samples"]] for source in (figures, EXPECTED))
        np.testing.assert_allclose(means, expected, rtol=1e-3)
        adherence, psnr = figures["scores"].pop("caption_adherence"), figures["scores"].pop("vae_psnr")
        assert adherence == EXPECTED["scores"]["caption_adherence"]
        assert psnr == pytest.approx(EXPECTED["scores"]["vae_psnr"], rel=1e-3)
