"""The report's plots, as SVG for a light and for a dark page."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Bounds = tuple[float | int | None, float | int | None]  # least and most
_BINS = 40


@dataclass(frozen=True)
class Theme:
    """Colours of one page."""

    ink: str
    faint: str
    grid: str
    kept: str
    other: str
    mark: str


LIGHT = Theme("#1f2430", "#68707f", "#e3e6eb", "#2f6fde", "#b4bcc9", "#c2410c")
DARK = Theme("#e7eaf0", "#98a1b0", "#323844", "#6aa5ff", "#586273", "#fb923c")


def histogram(
    kept: Float[np.ndarray, " K"],
    dropped: Float[np.ndarray, " D"],
    otherwise: Float[np.ndarray, " N"],
    bounds: Bounds,
    label: str,
    theme: Theme,
) -> bytes:
    """Return a measure of clips that were kept, dropped for it, and dropped otherwise, stacked; thresholds as lines.

    What lies far outside of most values counts to the outermost bars.
    """
    figure, axes = _figure(theme, (4.6, 2.7), (0.11, 0.24, 0.97, 0.89))
    low, high = _reach(np.concatenate([kept, dropped, otherwise]), bounds)
    edges = np.linspace(low, high, _BINS + 1)
    parts = [
        (kept, theme.kept, "kept"),
        (otherwise, theme.other, "dropped otherwise"),
        (dropped, theme.mark, "dropped for this"),
    ]
    below = np.zeros(_BINS)
    for values, color, name in parts:
        if len(values):
            above = below + np.histogram(np.clip(values, low, high), edges)[0]
            axes.stairs(above, edges, baseline=below, fill=True, color=color, label=name)
            below = above
    for bound in bounds:
        if bound is not None:
            axes.axvline(bound, color=theme.ink, linestyle=(0, (3, 2)), linewidth=1.2)
            late = bound > low + 0.85 * (high - low)
            alignment = {"xytext": (-3 if late else 3, -9), "ha": "right" if late else "left"}
            style = {"textcoords": "offset points", "color": theme.ink, "fontsize": 8.5}
            axes.annotate(f"{bound:g}", (bound, 1), xycoords=("data", "axes fraction"), **alignment, **style)
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.05 * below.max())
    axes.set_ylabel("clips")
    axes.set_xlabel(textwrap.fill(label, 64))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=8.5, labelcolor=theme.ink,
        borderaxespad=0.2, handlelength=1.0, columnspacing=1.0,
    )  # fmt: skip
    return _svg(figure)


def funnel(steps: Sequence[tuple[str, float]], unit: str, theme: Theme) -> bytes:
    """Return the plot of what remains after each step, from all to kept."""
    figure, axes = _figure(theme, (6.4, height := 0.6 + 0.34 * len(steps)), (0.19, 0.5 / height, 0.98, 0.97))
    names, remaining = zip(*steps, strict=True)
    heights = np.arange(len(steps))[::-1]
    before = (remaining[0], *remaining[:-1])
    axes.barh(heights, before, 0.62, color=theme.mark, alpha=0.35)
    axes.barh(heights, remaining, 0.62, color=theme.kept)
    most = max(before) or 1.0
    for y, value in zip(heights, remaining, strict=True):
        share = f"  {100 * value / most:.0f}%"
        axes.annotate(share, (max(value, 0), y), va="center", color=theme.ink, fontsize=8.5)
    axes.set_yticks(heights, names)
    axes.set_xlim(0, 1.12 * most)
    axes.set_xlabel(unit)
    axes.grid(axis="y", visible=False)
    return _svg(figure)


def _reach(values: Float[np.ndarray, " N"], bounds: Bounds) -> tuple[float, float]:
    """Return the range that holds most values and the thresholds."""
    low, high = np.percentile(values, [1, 99]) if len(values) > 100 else (values.min(), values.max())
    ends = [low, high, *(bound for bound in bounds if bound is not None)]
    low, high = float(min(ends)), float(max(ends))
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _figure(theme: Theme, size: tuple[float, float], inside: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Create a figure and its axes from left and bottom to right and top, without pyplot and its global state."""
    figure = Figure(figsize=size, facecolor="none")
    figure.subplots_adjust(*inside)
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


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "videodit"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
