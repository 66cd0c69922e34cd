"""The report of an evaluation: one HTML file that holds everything it shows and needs nothing else."""

import base64
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jinja2

from videodit.evals.plots import DARK, LIGHT, Theme, adherence_chart, bucket_chart, bucket_names, loss_chart

Plot = tuple[str, str]  # for a light page and for a dark one
MEDIA_TYPES = ("video/mp4", "video/webm", "image/gif", "image/png")


@dataclass(frozen=True)
class KeyFigure:
    """A number that the report opens with; `at_least` is the value that it should reach, if any."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Adherence:
    """The share (0 to 1) of the statements of one kind that hold.

    generated, real: for generated clips, and for real clips under the same oracle. chance: by guessing.
    statements: how many statements of generated clips were checked.
    """

    kind: str
    generated: float
    real: float | None = None
    chance: float | None = None
    statements: int | None = None


@dataclass(frozen=True)
class LossCurves:
    """The loss of one run, read from its metric records (the lines of a `metrics.jsonl`; each has a `step`).

    train, heldout: names of the numbers; names that begin with `heldout` are its time buckets, one curve each.
    """

    title: str
    records: Sequence[Mapping[str, Any]]
    train: str = "loss"
    heldout: str = "eval/loss"


@runtime_checkable
class Verdict(Protocol):
    """What an oracle says of one statement of a prompt.

    kind, value: what is stated, such as colour and red. subject: what it is stated of; None for the main object.
    holds: whether it does. measured: what was seen.
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
    """A clip beside its prompt. media: the bytes of a file of type `media_type`, one of `MEDIA_TYPES`."""

    prompt: str
    media: bytes
    media_type: str = "video/mp4"
    verdicts: Sequence[Verdict] = ()

    def __post_init__(self):
        if self.media_type not in MEDIA_TYPES:
            raise ValueError(f"media type {self.media_type!r} cannot be shown: use one of {MEDIA_TYPES}")


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows; sections without content are left out.

    title, summary: heading and opening paragraph.
    figures: key figures, in order. adherence: by kind of statement. losses: one plot a run.
    clips: samples with prompts and verdicts. provenance: config, versions, checkpoint and so on; values are scalars or
        anything that JSON can hold, which is folded away.
    """

    title: str
    summary: str = ""
    figures: Sequence[KeyFigure] = ()
    adherence: Sequence[Adherence] = ()
    losses: Sequence[LossCurves] = ()
    clips: Sequence[Clip] = ()
    provenance: Mapping[str, Any] | None = None


def write_report(path: Path, data: ReportData) -> None:
    """Writes the report to `path` as one self-contained HTML file, whole or not at all; makes missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(render(data), encoding="utf-8")
    os.replace(partial, path)


def render(data: ReportData) -> str:
    """The report as HTML; every text from `data` is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "percent": _percent, "json": _json, "data_uri": data_uri}
    template = resources.files("videodit.evals").joinpath("html_report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        data=data,
        adherence_plot=_adherence_plot(data.adherence) if data.adherence else None,
        loss_plots=[(curves.title, _loss_plots(curves)) for curves in data.losses],
        facts={name: value for name, value in (data.provenance or {}).items() if _is_scalar(value)},
        folded={name: value for name, value in (data.provenance or {}).items() if not _is_scalar(value)},
    )


def data_uri(content: bytes, media_type: str) -> str:
    """`content` as an address that holds it."""
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
    return data_uri(chart(LIGHT), "image/svg+xml"), data_uri(chart(DARK), "image/svg+xml")


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | Path)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f}%"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
