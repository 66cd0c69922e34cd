import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from videodit.evals.plots import (
    DARK,
    LIGHT,
    adherence_chart,
    bucket_chart,
    bucket_names,
    loss_chart,
    select_series,
    smooth,
)

RECORDS = [
    {"step": 1, "loss": 2.0},
    {"step": 2, "loss": float("nan"), "grad_norm": 1.0},
    {"step": 3, "loss": None},
    {"step": 4, "loss": 1.0},
    {"step": 4, "eval/loss": 1.5, "eval/loss_t0.1": 1.0, "eval/loss_t0.9": 2.0},
    {"eval/loss": 7.0},
]

both_themes = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def labels(svg):
    """Return the texts of a plot, which matplotlib writes as comments next to their outlines."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.fromstring(svg, parser)
    return [node.text.strip() for node in root.iter(ElementTree.Comment)]


def test_a_series_is_what_is_finite_at_a_known_step():
    steps, values = select_series(RECORDS, "loss")
    assert steps.tolist() == [1, 4] and values.tolist() == [2, 1]
    assert select_series(RECORDS, "eval/loss")[1].tolist() == [1.5]
    assert len(select_series(RECORDS, "nothing")[0]) == 0


def test_buckets_are_the_names_with_a_suffix():
    assert bucket_names(RECORDS, "eval/loss") == ["eval/loss_t0.1", "eval/loss_t0.9"]
    assert bucket_names(RECORDS, "loss") == []


def test_smoothing_keeps_lines_and_lowers_noise():
    np.testing.assert_allclose(smooth(np.full(100, 3.0)), 3)
    np.testing.assert_allclose(smooth(np.arange(100.0))[2:-2], np.arange(2, 98))
    noise = np.random.default_rng(0).standard_normal(1000)
    assert smooth(noise).std() < 0.3 * noise.std()
    assert smooth(np.array([])).size == 0


@both_themes
def test_loss_charts_are_labeled(theme):
    assert {"training", "held out", "step", "loss"} <= set(labels(loss_chart(RECORDS, "loss", "eval/loss", theme)))
    assert {"t = 0.1", "t = 0.9"} <= set(labels(bucket_chart(RECORDS, "eval/loss", theme)))


def test_a_loss_chart_of_nothing_is_empty_not_an_error():
    assert "training" not in labels(loss_chart([], "loss", "eval/loss", LIGHT))


def test_losses_below_zero_are_drawn():
    assert "training" in labels(
        loss_chart([{"step": 1, "loss": -1.0}, {"step": 2, "loss": 1.0}], "loss", "eval", LIGHT)
    )


@both_themes
def test_the_adherence_chart_has_bars_and_chance(theme):
    texts = labels(adherence_chart(["colour", "count"], [0.91, 0.5], [1.0, None], [None, 0.33], theme))
    assert {"colour", "count", "91%", "50%", "100%", "generated clips", "real clips", "chance"} <= set(texts)
    texts = labels(adherence_chart(["colour"], [0.91], [None], [None], theme))
    assert not {"real clips", "chance"} & set(texts)


def test_plots_are_repeatable_and_differ_by_theme():
    charts = [loss_chart(RECORDS, "loss", "eval/loss", theme) for theme in (LIGHT, LIGHT, DARK)]
    assert charts[0] == charts[1] != charts[2]
