"""The report of an evaluation: a self-contained HTML file."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol, runtime_checkable

import jinja2

from videodit.checkpoint.atomic_write import write_text_atomically
from videodit.evals.plots import DARK, LIGHT, Theme, adherence_chart, bucket_chart, bucket_names, loss_chart
from videodit.provenance import JSON

Plot = tuple[str, str]  # for a light page and for a dark one
MEDIA_TYPES = ("video/mp4", "video/webm", "image/gif", "image/png")


@dataclass(frozen=True)
class KeyFigure:
    """A number at the top of the report; `at_least` is its target, if any."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Adherence:
    """The share (0 to 1) of the statements of one kind that hold.

    Attributes:
        generated: of generated clips.
        real: of real clips, judged by the same oracle.
        chance: of random guesses.
        statements: the number of statements of generated clips that were checked.
    """

    kind: str
    generated: float
    real: float | None = None
    chance: float | None = None
    statements: int | None = None


@dataclass(frozen=True)
class LossCurves:
    """The losses of a run.

    Attributes:
        records: the lines of its `metrics.jsonl`; each has a `step`.
        train: the name of the training loss.
        heldout: the name of the held-out loss; longer names that start with it are its buckets of time.
    """

    title: str
    records: Sequence[Mapping[str, JSON]]
    train: str = "loss"
    heldout: str = "eval/loss"


@runtime_checkable
class Verdict(Protocol):
    """An oracle's verdict on a statement of a prompt.

    Attributes:
        kind, value: the statement, such as colour and red.
        subject: the object that it is about; None for the main object.
        holds: whether it is true.
        measured: what the clip shows.
    """

    @property
    def kind(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def holds(self) -> bool: ...
    @property
    def measured(self) -> str: ...


@dataclass(frozen=True)
class Clip:
    """A clip and its prompt. media: the bytes of a file of type `media_type`, one of `MEDIA_TYPES`."""

    prompt: str
    media: bytes
    media_type: str = "video/mp4"
    verdicts: Sequence[Verdict] = ()

    def __post_init__(self):
        if self.media_type not in MEDIA_TYPES:
            raise ValueError(f"media type {self.media_type!r} is not supported: use one of {MEDIA_TYPES}")


@dataclass(frozen=True)
class ReportData:
    """The content of a report; empty sections are omitted.

    Attributes:
        title, summary: heading and first paragraph.
        figures: key figures, in order.
        adherence: by kind of statement.
        losses: a plot per run.
        clips: samples with prompts and verdicts.
        provenance: configuration, versions, checkpoint and so on; values other than scalars are collapsed.
    """

    title: str
    summary: str = ""
    figures: Sequence[KeyFigure] = ()
    adherence: Sequence[Adherence] = ()
    losses: Sequence[LossCurves] = ()
    clips: Sequence[Clip] = ()
    provenance: Mapping[str, JSON] | None = None


def write_report(path: Path, data: ReportData) -> None:
    """Write the report as a self-contained HTML file, atomically; creates missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, render(data))


def render(data: ReportData) -> str:
    """Return the report as HTML, with all text escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "percent": _percent, "json": _json, "data_uri": to_data_uri}
    template = resources.files("videodit.evals").joinpath("html_report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        data=data,
        adherence_plot=_adherence_plot(data.adherence) if data.adherence else None,
        loss_plots=[(curves.title, _loss_plots(curves)) for curves in data.losses],
        facts={name: value for name, value in (data.provenance or {}).items() if _is_scalar(value)},
        folded={name: value for name, value in (data.provenance or {}).items() if not _is_scalar(value)},
    )


def to_data_uri(content: bytes, media_type: str) -> str:
    """Return `content` as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _adherence_plot(adherence: Sequence[Adherence]) -> Plot:
    kinds = [row.kind for row in adherence]
    shares = [[getattr(row, name) for row in adherence] for name in ("generated", "real", "chance")]
    return _plot(lambda theme: adherence_chart(kinds, *shares, theme))


def _loss_plots(curves: LossCurves) -> list[Plot]:
    plots = [_plot(lambda theme: loss_chart(curves.records, curves.train, curves.heldout, theme))]
    if bucket_names(curves.records, curves.heldout):
        plots.append(_plot(lambda theme: bucket_chart(curves.records, curves.heldout, theme)))
    return plots


def _plot(chart: Callable[[Theme], bytes]) -> Plot:
    return to_data_uri(chart(LIGHT), "image/svg+xml"), to_data_uri(chart(DARK), "image/svg+xml")


def _is_scalar(value: JSON | Path) -> bool:
    return value is None or isinstance(value, str | int | float | bool | Path)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f}%"


def _json(value: JSON | Path) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
