"""A report on what a build kept and dropped, and why: one self-contained HTML page."""

import base64
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from videodit_data.boundary.typed_json import Count, convert, parse_json
from videodit_data.footage import decisions
from videodit_data.footage.analysis_result import MEASURES
from videodit_data.footage.decisions import STAGES, THUMBNAILS, Tally, thumbnail_name
from videodit_data.footage.filters import Filter
from videodit_data.footage.plots import DARK, LIGHT, Theme, funnel, histogram
from videodit_data.storage import manifest

Plot = tuple[str, str]  # for a light page and for a dark one
Row = dict[str, Any]
_ERRORS, _PAIRS = 200, 24  # that are shown at most


@dataclass
class _Table:
    """The data of the page, read from the table of decisions."""

    tallies: dict[tuple[str, str, str | None], Tally] = field(default_factory=lambda: defaultdict(Tally))
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # of measures
    fates: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # 0 kept, 1 for this, 2 otherwise
    examples: dict[tuple[str, str], list[Row]] = field(default_factory=lambda: defaultdict(list))
    pairs: list[tuple[Row, str]] = field(default_factory=list)
    errors: list[Row] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    clips: int = 0


def write_report(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the report of a data set that was built from footage to `path`, atomically.

    ValueError when `directory` holds no such data set.
    """
    html = render(Path(directory))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    manifest.write_whole(Path(path), html)


def render(directory: Path) -> str:
    """Return the page as HTML; every text is escaped."""
    dataset, table = manifest.load(directory), _read(directory)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "time": _time, "json": _json, "percent": _percent}
    template = (
        resources.files("videodit_data.footage").joinpath("quality_report.html.jinja").read_text(encoding="utf-8")
    )
    steps = list(_steps(table))
    thumbnails = directory / THUMBNAILS
    filters = convert(dataset.info, _Info, f"{directory / manifest.FILE}, info", more=True).config.filters
    notes = directory / "notes.json"
    return environment.from_string(template).render(
        title=directory.resolve().name,
        dataset=dataset,
        table=table,
        steps=steps,
        funnel=_plot(lambda theme: funnel([(s.name, s.seconds_left / 60) for s in steps], "minutes left", theme)),
        histograms=list(_histograms(table, filters)),
        reasons=[(key, tally) for key, tally in _ordered(table) if key[0] != "kept"],
        kept=table.examples.get(("kept", ""), []),
        dropped=[(key, rows) for key, rows in sorted(table.examples.items(), key=_stage_first) if key[0] != "kept"],
        pairs=table.pairs[:_PAIRS],
        errors=table.errors[:_ERRORS],
        more_errors=len(table.errors) - _ERRORS,
        crowded=parse_json(notes.read_bytes(), _Notes, str(notes)).crowded if notes.is_file() else 0,
        picture=lambda clip: _data_uri((thumbnails / thumbnail_name(clip)).read_bytes(), "image/jpeg"),
    )


def _read(directory: Path) -> _Table:
    table = _Table()
    have = {path.name for path in (directory / THUMBNAILS).glob("*.jpg") if path.is_file()}
    for row in decisions.read(directory):
        table.tallies[row["stage"], row["reason"], row["measure"]].add(row)
        table.sources.add(row["source"])
        if row["frames"] is None:
            table.errors.append(row)
            continue
        table.clips += row["clip"] is not None
        for name, value in row["measures"].items():
            if value is not None:
                table.values[name].append(value)
                own_filter = row["stage"] == "filter" and row["measure"] == name
                table.fates[name].append(0 if row["kept"] else 1 if own_filter else 2)
        part = row["clip"] or f"{row['source']}#{row['start']}-{row['start'] + row['frames']}"
        if thumbnail_name(part) in have:
            if row["duplicate_of"] and thumbnail_name(row["duplicate_of"]) in have:
                table.pairs.append((row, row["duplicate_of"]))
            else:
                table.examples[row["stage"], row["reason"]].append(row | {"part": part})
    return table


@dataclass(frozen=True)
class _Config:
    """The configuration of the build, of which the report shows the bounds of filters."""

    filters: Mapping[str, Filter] = field(default_factory=dict)


@dataclass(frozen=True)
class _Info:
    """The manifest's `info` of a build."""

    config: _Config = field(default_factory=_Config)


@dataclass(frozen=True)
class _Notes:
    """notes.json: the number of clips that were not compared with all others."""

    crowded: Count = 0


@dataclass(frozen=True)
class _Step:
    """A step of the funnel: clips and seconds that it drops, and the seconds that remain."""

    name: str
    clips: int
    seconds: float
    seconds_left: float


def _steps(table: _Table) -> Iterator[_Step]:
    seconds_left = sum(tally.seconds for tally in table.tallies.values())
    yield _Step("footage read", 0, 0.0, seconds_left)
    by_step: dict[str, list[Tally]] = defaultdict(list)
    for (stage, _, measure), tally in _ordered(table):
        if stage not in ("match", "read", "kept"):
            by_step[f"{measure}" if stage == "filter" else {"split": "long enough"}.get(stage, stage)].append(tally)
    for name, tallies in by_step.items():
        clips, seconds = sum(t.clips for t in tallies), sum(t.seconds for t in tallies)
        seconds_left -= seconds
        yield _Step(name, clips, seconds, max(seconds_left, 0.0))


def _ordered(table: _Table) -> list[tuple[tuple[str, str, str | None], Tally]]:
    order = {name: position for position, name in enumerate(table.values)}
    return sorted(
        table.tallies.items(), key=lambda item: (STAGES.index(item[0][0]), order.get(item[0][2] or "", -1), item[0][1])
    )


def _stage_first(item: tuple[tuple[str, str], Any]) -> tuple[int, str]:
    return STAGES.index(item[0][0]), item[0][1]


def _histograms(table: _Table, filters: Mapping[str, Filter]) -> Iterator[tuple[str, Plot]]:
    names = [name for name in filters if name in table.values]
    for name in [*names, *sorted(set(table.values) - set(names))]:
        values, fates = np.array(table.values[name], np.float64), np.array(table.fates[name])
        bound = filters.get(name, Filter())
        bounds = bound.least, bound.most
        parts = [values[fates == fate] for fate in range(3)]
        yield name, _plot(lambda theme: histogram(*parts, bounds, MEASURES.get(name, name), theme))  # noqa: B023


def _plot(chart: Callable[[Theme], bytes]) -> Plot:
    return _data_uri(chart(LIGHT), "image/svg+xml"), _data_uri(chart(DARK), "image/svg+xml")


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _number(value: float | int) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"


def _percent(share: float | int) -> str:
    return f"{100 * share:.1f}%"


def _time(seconds: float | int) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
