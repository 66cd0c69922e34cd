"""Committed figures of the golden runs.

With the compiler of the values, the first steps of an autoencoder hold on any machine to 3e-5, and those of a
transformer, which trains on latents of a trained autoencoder, to 3e-4. Later ones drift where sums are ordered in
another way (by other compilers or vector units): Adam divides small gradients by their own size. `compare.py` demands
equal bits, on one machine.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.golden.figures import ALL_RUNS, make_figures

HERE = Path(__file__).parent
TREE = HERE.parents[1]
STEPS_AND_DRIFT = {"loss": (5, 1e-3), "grad_norm": (2, 5e-3), "heldout": (0, 1e-3)}
"""How many steps hold closely, and how far later ones drift between jax 0.10 and 0.12."""
COMPILER = "0.10."
"""The version of jax that the values are of; later ones order sums in another way from the first step on."""
EXPECTED = json.loads((HERE / "values.json").read_text())


@pytest.mark.parametrize(
    ("runs", "scores"),
    [
        pytest.param(["vae-1", "dit-1"], False, id="one device"),
        pytest.param(ALL_RUNS, True, id="all", marks=pytest.mark.slow),
    ],
)
def test_figures_are_those_that_were_committed(tmp_path, runs, scores):
    figures = make_figures(TREE, HERE / "configs.py", tmp_path, runs, scores=scores, heldout=scores)
    assert set(figures) == {*runs, *(("samples", "scores") if scores else ())}
    for run in runs:
        close = 3e-5 if run.startswith("vae") and jax.__version__.startswith(COMPILER) else 3e-4
        for name, (first, drift) in STEPS_AND_DRIFT.items():
            there, here = EXPECTED[run][name], figures[run][name]
            if name == "heldout" and not scores:
                continue
            np.testing.assert_allclose(here[:first], there[:first], rtol=close, err_msg=f"{run} {name}")
            np.testing.assert_allclose(here, there, rtol=drift, err_msg=f"{run} {name}")
    if scores:
        means, expected = ([clip["mean"] for clip in source["samples"]] for source in (figures, EXPECTED))
        np.testing.assert_allclose(means, expected, rtol=1e-3)
        adherence, psnr = figures["scores"].pop("caption_adherence"), figures["scores"].pop("vae_psnr")
        assert adherence == EXPECTED["scores"]["caption_adherence"]
        assert psnr == pytest.approx(EXPECTED["scores"]["vae_psnr"], rel=1e-3)
