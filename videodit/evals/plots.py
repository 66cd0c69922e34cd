"""The report's plots, as SVG for a light and for a dark page."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Series = tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]

_MOST_POINTS = 400  # of a curve: more would only make the file larger


@dataclass(frozen=True)
class Theme:
    """Colours of one page; `buckets` is the part of the colour map that can be told from the background."""

    ink: str
    faint: str
    grid: str
    accent: str
    second: str
    mark: str
    buckets: tuple[float, float]


LIGHT = Theme("#1f2430", "#68707f", "#e3e6eb", "#2f6fde", "#b4bcc9", "#c2410c", (0.0, 0.85))
DARK = Theme("#e7eaf0", "#98a1b0", "#323844", "#6aa5ff", "#586273", "#fb923c", (0.25, 1.0))


def adherence_chart(
    kinds: Sequence[str],
    generated: Sequence[float],
    real: Sequence[float | None],
    chance: Sequence[float | None],
    theme: Theme,
) -> bytes:
    """Bars of the share of statements that hold, by kind: generated clips beside real ones, chance as a line."""
    figure, axes = _figure(theme)
    places = np.arange(len(kinds))
    width = 0.36 if any(share is not None for share in real) else 0.6
    offset = width / 2 + 0.02 if width < 0.5 else 0.0
    _bars(axes, places - offset, generated, width, theme.accent, "generated clips", theme)
    if offset:
        _bars(axes, places + offset, real, width, theme.second, "real clips", theme)
    known = [(place, share) for place, share in zip(places, chance, strict=True) if share is not None]
    if known:
        at, shares = np.array(known).T
        axes.hlines(
            shares, at - 0.44, at + 0.44, color=theme.mark, linestyle=(0, (3, 2)), linewidth=1.4, label="chance"
        )
    axes.set_xticks(places, list(kinds))
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_ylabel("statements that hold")
    axes.grid(axis="x", visible=False)
    _legend(axes, theme)
    return _svg(figure)


def loss_chart(records: Sequence[Mapping[str, Any]], train: str, heldout: str, theme: Theme) -> bytes:
    """The training loss, as it is and smoothed, and the held-out loss, over steps; names as in the records."""
    figure, axes = _figure(theme)
    steps, values = series(records, train)
    if len(steps):
        axes.plot(*_thin(steps, values), color=theme.second, linewidth=0.8)
        axes.plot(*_thin(steps, smooth(values)), color=theme.accent, linewidth=1.8, label="training")
    steps, values = series(records, heldout)
    if len(steps):
        axes.plot(*_thin(steps, values), color=theme.mark, linewidth=1.6, marker="o", markersize=3, label="held out")
    _loss_axes(axes, records, [train, heldout], "loss")
    _legend(axes, theme)
    return _svg(figure)


def bucket_names(records: Sequence[Mapping[str, Any]], heldout: str) -> list[str]:
    """The names of the held-out losses by time bucket: those that begin with `heldout` and go on."""
    names = {name for record in records for name in record if name.startswith(heldout) and name != heldout}
    return sorted(names)


def bucket_chart(records: Sequence[Mapping[str, Any]], heldout: str, theme: Theme) -> bytes:
    """The held-out loss of every time bucket over steps, darker or brighter from the first bucket to the last."""
    figure, axes = _figure(theme)
    names = bucket_names(records, heldout)
    colours = mpl.colormaps["viridis"](np.linspace(*theme.buckets, len(names)))
    for name, colour in zip(names, colours, strict=True):
        label = name.removeprefix(heldout).strip("_/ ").replace("t", "t = ", 1)
        axes.plot(*_thin(*series(records, name)), color=colour, linewidth=1.6, marker="o", markersize=3, label=label)
    _loss_axes(axes, records, names, "held-out loss at time t")
    _legend(axes, theme)
    return _svg(figure)


def series(records: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Steps and values of the records that have a finite number of that name."""
    points = [(r["step"], r[name]) for r in records if "step" in r and _finite(r.get(name))]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values


def smooth(values: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """Mean over a window of a twentieth of the points, shorter at both ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    left = np.maximum(np.arange(len(values)) - reach, 0)
    right = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (total[right] - total[left]) / (right - left)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _thin(steps: Float[np.ndarray, "points"], values: Float[np.ndarray, "points"]) -> Series:
    keep = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_POINTS)).astype(int))
    return steps[keep], values[keep]


def _figure(theme: Theme) -> tuple[Figure, Axes]:
    """A figure and its axes; made without pyplot, they leave no global state behind."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.faint)
    axes.tick_params(colors=theme.faint, labelcolor=theme.ink, labelsize=9, length=0)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.faint, size=9)
    return figure, axes


def _bars(
    axes: Axes,
    places: Float[np.ndarray, "kinds"],
    shares: Sequence[float | None],
    width: float,
    colour: str,
    label: str,
    theme: Theme,
) -> None:
    heights = [share or 0.0 for share in shares]
    texts = ["" if share is None else f"{100 * share:.0f}%" for share in shares]
    bars = axes.bar(places, heights, width, color=colour, label=label)
    axes.bar_label(bars, texts, padding=2, fontsize=8.5, color=theme.ink)


def _loss_axes(axes: Axes, records: Sequence[Mapping[str, Any]], names: Sequence[str], label: str) -> None:
    values = np.concatenate([series(records, name)[1] for name in names])
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("step")
    axes.set_ylabel(label)


def _legend(axes: Axes, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        style = {"frameon": False, "fontsize": 9, "labelcolor": theme.ink}
        space = {"borderaxespad": 0.2, "handlelength": 1.3, "columnspacing": 1.2, "ncols": 5}
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), **style, **space)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "videodit"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
