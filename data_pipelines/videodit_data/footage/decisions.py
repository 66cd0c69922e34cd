"""Decisions on every clip and source of a build: one row each, in a Parquet table next to the shards."""

import hashlib
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videodit_data.boundary.typed_json import shorten

FOLDER, THUMBNAILS = "decisions", "thumbnails"  # next to the shards
STAGES = ("match", "read", "split", "filter", "captions", "duplicates", "cut", "caption", "kept")
_MEASURE = "measure."  # prefix of the columns of measures

_COLUMNS = {
    "source": pa.string(),
    "clip": pa.string(),
    "start": pa.int64(),
    "frames": pa.int64(),
    "start_seconds": pa.float64(),
    "seconds": pa.float64(),
    "height": pa.int32(),
    "width": pa.int32(),
    "fps": pa.float64(),
    "kept": pa.bool_(),
    "stage": pa.string(),
    "measure": pa.string(),
    "value": pa.float64(),
    "threshold": pa.float64(),
    "reason": pa.string(),
    "detail": pa.string(),
    "duplicate_of": pa.string(),
}


@dataclass(frozen=True)
class Decision:
    """The fate of a clip, of a part of a source too short for one, of a caption that fits no clip (without `frames`,
    at the stage "captions"), or of a whole source.

    source: name of the file. start: first frame. start_seconds: when it is shown after the source's first. stage: one
    of `STAGES`, "kept" if it is. measure, value, threshold: of what dropped it, if that is a number. reason: the same
    for all that were dropped so. detail: what is known besides, such as a decoder's words. duplicate_of: id of a clip.
    """

    source: str
    stage: str
    reason: str = ""
    clip: str | None = None
    start: int | None = None
    frames: int | None = None
    start_seconds: float | None = None
    seconds: float | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    measure: str | None = None
    value: float | int | None = None
    threshold: float | int | None = None
    detail: str | None = None
    duplicate_of: str | None = None
    measures: Mapping[str, float | int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.stage in STAGES and (self.stage == "kept") == (not self.reason)

    @property
    def kept(self) -> bool:
        """Return whether the row is a clip of the data set."""
        return self.stage == "kept"

    @property
    def order(self) -> tuple[str, int, str, str, str]:
        """Return the row's sort key in the table."""
        return self.source, -1 if self.start is None else self.start, self.clip or "", self.reason, self.detail or ""


def thumbnail_name(clip: str) -> str:
    """Return the file of a clip's pictures below `THUMBNAILS`, if it is among those that have some."""
    return f"{digest(clip)[:24]}.jpg"


def digest(clip: str) -> str:
    """Return the sort key of clips, a hash of the id, which separates those of one source."""
    return hashlib.sha256(clip.encode()).hexdigest()


def to_parquet(decisions: Iterable[Decision], measures: Sequence[str]) -> bytes:
    """Return a Parquet file of decisions, in order, with a column a measure."""
    rows = sorted(decisions, key=lambda decision: decision.order)
    columns = {name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in _COLUMNS.items()}
    for name in measures:
        columns[_MEASURE + name] = pa.array([row.measures.get(name) for row in rows], pa.float64())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def parts(directory: Path) -> list[Path]:
    """Return the files of the table of a data set. ValueError when it has none."""
    files = sorted(path for path in (directory / FOLDER).glob("*.parquet") if path.is_file())
    if not files:
        raise ValueError(f"{directory} has no table of decisions: it was not made by `videodit data build`.")
    return files


def read(directory: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read the rows of a data set's table, or only some `columns`; without these, "measures" has all measures.

    ValueError when there is no table, or it has other columns, types or values.
    """
    for part in parts(directory):
        try:
            file = pq.ParquetFile(part)
            _check_columns(file.schema_arrow)
            for batch in file.iter_batches(columns=None if columns is None else list(columns)):
                for row in batch.to_pylist():
                    _check_row(row)
                    measures = {k.removeprefix(_MEASURE): row.pop(k) for k in list(row) if k.startswith(_MEASURE)}
                    yield row | ({"measures": measures} if columns is None else {})
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{part} is not a table of decisions ({reason:.200}); build the data set again."
            ) from error


def _check_columns(schema: pa.Schema) -> None:
    """Check that a table has all columns with their types, and measures. ValueError if not."""
    types = dict(zip(schema.names, schema.types, strict=True))
    for name, kind in _COLUMNS.items():
        if types.get(name) != kind:
            raise ValueError(f"its column '{name}' is {types.get(name, 'missing')}; expected {kind}")
    for name in types.keys() - _COLUMNS.keys():
        is_measure = name.startswith(_MEASURE) and _is_word(name.removeprefix(_MEASURE))
        if not is_measure or types[name] != pa.float64():
            raise ValueError(f"its column {shorten(name)} is {types[name]}; expected a column of decisions")
    if len(types) < len(schema.names):
        raise ValueError("two of its columns have one name")


def _check_row(row: Mapping[str, Any]) -> None:
    """Check the values of a row's columns, as far as it has them. ValueError names the column."""
    for name, value in row.items():
        if name in ("source", "stage", "reason", "kept") and value is None:
            raise ValueError(f"'{name}' is null in a row; expected a value")
        if name == "stage" and value not in STAGES:
            raise ValueError(f"'stage' is {shorten(value)} in a row; expected one of {', '.join(STAGES)}")
        if name in ("start", "frames", "start_seconds", "seconds", "fps") and not 0 <= (value or 0) < math.inf:
            raise ValueError(f"'{name}' is {shorten(value)} in a row; expected a number of at least 0")
        if (name.startswith(_MEASURE) or name in ("value", "threshold")) and not math.isfinite(value or 0):
            raise ValueError(f"'{name}' is {shorten(value)} in a row; expected a finite number")
        if name == "measure" and value is not None and not _is_word(value):
            raise ValueError(f"'measure' is {shorten(value)} in a row; expected the name of a measure")
    for of, names in {"frames": ("start", "seconds"), "duplicate_of": ("clip", "value")}.items():
        for name in names:
            if row.get(of) is not None and name in row and row[name] is None:
                raise ValueError(f"'{name}' is null in a row with {of}; expected a value")


def _is_word(name: str) -> bool:
    """Return whether a name is a plain word, as those of measures are, which plots show."""
    return re.fullmatch(r"\w{1,40}", name, re.ASCII) is not None


def tally(directory: Path) -> dict[tuple[str, str], "Tally"]:
    """Return the number of rows dropped by each stage and reason, in the order of the funnel and by count."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for row in read(directory, ("source", "clip", "stage", "reason", "frames", "seconds")):
        tallies[row["stage"], row["reason"]].add(row)
    return dict(sorted(tallies.items(), key=lambda item: (STAGES.index(item[0][0]), -item[1].rows, item[0][1])))


@dataclass
class Tally:
    """Counts of rows, clips, frames and seconds, and the name of one example."""

    rows: int = 0
    clips: int = 0
    frames: int = 0
    seconds: float = 0.0
    example: str = ""

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row of the table."""
        self.rows += 1
        self.clips += row["clip"] is not None
        self.frames += row["frames"] or 0
        self.seconds += row["seconds"] or 0.0
        self.example = self.example or row["clip"] or row["source"]
