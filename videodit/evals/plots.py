"""Plots of the report as SVG, with light and dark colors."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from videodit.provenance import JSON

Series = tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]

_MAX_POINTS = 400  # of a curve, to limit the size of the file


@dataclass(frozen=True)
class Theme:
    """Colors of a page; `buckets` is the range of the color map that contrasts with the background."""

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
    """Plot the share of statements that hold by kind: bars of generated and of real clips, chance as a line."""
    figure, axes = _figure(theme)
    positions = np.arange(len(kinds))
    width = 0.36 if any(share is not None for share in real) else 0.6
    offset = width / 2 + 0.02 if width < 0.5 else 0.0
    _bars(axes, positions - offset, generated, width, theme.accent, "generated clips", theme)
    if offset:
        _bars(axes, positions + offset, real, width, theme.second, "real clips", theme)
    guesses = [(x, share) for x, share in zip(positions, chance, strict=True) if share is not None]
    if guesses:
        x, shares = np.array(guesses).T
        axes.hlines(shares, x - 0.44, x + 0.44, color=theme.mark, linestyle=(0, (3, 2)), linewidth=1.4, label="chance")
    axes.set_xticks(positions, list(kinds))
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_ylabel("statements that hold")
    axes.grid(axis="x", visible=False)
    _legend(axes, theme)
    return _svg(figure)


def loss_chart(records: Sequence[Mapping[str, JSON]], train: str, heldout: str, theme: Theme) -> bytes:
    """Plot the training loss, raw and smoothed, and the held-out loss over steps; names as in the records."""
    figure, axes = _figure(theme)
    steps, values = select_series(records, train)
    if len(steps):
        axes.plot(*_thin(steps, values), color=theme.second, linewidth=0.8)
        axes.plot(*_thin(steps, smooth(values)), color=theme.accent, linewidth=1.8, label="training")
    steps, values = select_series(records, heldout)
    if len(steps):
        axes.plot(*_thin(steps, values), color=theme.mark, linewidth=1.6, marker="o", markersize=3, label="held out")
    _loss_axes(axes, records, [train, heldout], "loss")
    _legend(axes, theme)
    return _svg(figure)


def bucket_names(records: Sequence[Mapping[str, JSON]], heldout: str) -> list[str]:
    """Return the names of the held-out losses by bucket of time: longer names that start with `heldout`."""
    names = {name for record in records for name in record if name.startswith(heldout) and name != heldout}
    return sorted(names)


def bucket_chart(records: Sequence[Mapping[str, JSON]], heldout: str, theme: Theme) -> bytes:
    """Plot the held-out loss of every bucket of time over steps, colored from the first bucket to the last."""
    figure, axes = _figure(theme)
    names = bucket_names(records, heldout)
    colors = mpl.colormaps["viridis"](np.linspace(*theme.buckets, len(names)))
    for name, color in zip(names, colors, strict=True):
        label = name.removeprefix(heldout).strip("_/ ").replace("t", "t = ", 1)
        axes.plot(
            *_thin(*select_series(records, name)), color=color, linewidth=1.6, marker="o", markersize=3, label=label
        )
    _loss_axes(axes, records, names, "held-out loss at time t")
    _legend(axes, theme)
    return _svg(figure)


def select_series(records: Sequence[Mapping[str, JSON]], name: str) -> Series:
    """Return steps and values of the records that have a finite number under a name."""
    points = [(r["step"], r[name]) for r in records if "step" in r and _finite(r.get(name))]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values


def smooth(values: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """Return the mean over a sliding window of a twentieth of the points, shorter at both ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    left = np.maximum(np.arange(len(values)) - reach, 0)
    right = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (total[right] - total[left]) / (right - left)


def _finite(value: JSON) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _thin(steps: Float[np.ndarray, "points"], values: Float[np.ndarray, "points"]) -> Series:
    keep = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MAX_POINTS)).astype(int))
    return steps[keep], values[keep]


def _figure(theme: Theme) -> tuple[Figure, Axes]:
    """Return a figure and its axes, without the global state of pyplot."""
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
    positions: Float[np.ndarray, "kinds"],
    shares: Sequence[float | None],
    width: float,
    color: str,
    label: str,
    theme: Theme,
) -> None:
    heights = [share or 0.0 for share in shares]
    texts = ["" if share is None else f"{100 * share:.0f}%" for share in shares]
    bars = axes.bar(positions, heights, width, color=color, label=label)
    axes.bar_label(bars, texts, padding=2, fontsize=8.5, color=theme.ink)


def _loss_axes(axes: Axes, records: Sequence[Mapping[str, JSON]], names: Sequence[str], label: str) -> None:
    values = np.concatenate([select_series(records, name)[1] for name in names])
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
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            frameon=False,
            fontsize=9,
            labelcolor=theme.ink,
            borderaxespad=0.2,
            handlelength=1.3,
            columnspacing=1.2,
            ncols=5,
        )


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "videodit"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
