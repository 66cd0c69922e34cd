"""Committed figures of the golden runs, which hold on any machine to 1e-5."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.figures import ALL_RUNS, make_figures

HERE = Path(__file__).parent
TREE = HERE.parents[1]
EXPECTED = json.loads((HERE / "values.json").read_text())


@pytest.mark.parametrize(
    ("runs", "scores"),
    [
        pytest.param(["vae-1", "dit-1", "packed-1"], False, id="one device"),
        pytest.param(ALL_RUNS, True, id="all", marks=pytest.mark.slow),
    ],
)
def test_figures_are_those_that_were_committed(tmp_path, runs, scores):
    figures = make_figures(TREE, HERE / "configs.py", tmp_path, runs, scores=scores)
    assert set(figures) == {*runs, *(("samples", "scores") if scores else ())}
    for run in runs:
        for name in ("loss", "grad_norm", "heldout"):
            np.testing.assert_allclose(figures[run][name], EXPECTED[run][name], rtol=1e-5, err_msg=f"{run} {name}")
    if scores:
        means, expected = ([clip["mean"] for clip in source["samples"]] for source in (figures, EXPECTED))
        np.testing.assert_allclose(means, expected, rtol=1e-5)
        adherence, psnr = figures["scores"].pop("caption_adherence"), figures["scores"].pop("vae_psnr")
        assert adherence == EXPECTED["scores"]["caption_adherence"]
        assert psnr == pytest.approx(EXPECTED["scores"]["vae_psnr"], rel=1e-5)
