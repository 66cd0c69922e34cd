import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from videodit_data.footage import decisions
from videodit_data.footage.decisions import FOLDER, Decision, to_parquet

ROWS = [
    Decision("a.mp4", "kept", clip="a.mp4#0-9", start=0, frames=9, seconds=0.5, measures={"motion": 1.5, "text": None}),
    Decision(
        "a.mp4", "filter", "motion below 2", "a.mp4#9-18", 9, 9, seconds=0.5, measure="motion", value=1.0,
        threshold=2.0, measures={"motion": 1.0, "text": 0.25},
    ),
    Decision("a.mp4", "split", "too short for a clip", start=18, frames=2, seconds=0.1),
    Decision("b.mp4", "read", "truncated", detail="truncated after 1 of 2 seconds"),
]  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    for part, rows in enumerate((ROWS[:3], ROWS[3:])):
        (tmp_path / FOLDER / f"part-{part}.parquet").write_bytes(to_parquet(rows, ("motion", "text")))
    return tmp_path


def test_rows_come_back_as_they_were(directory: Path):
    rows = list(decisions.read(directory))
    assert [(row["source"], row["start"], row["kept"], row["stage"], row["reason"]) for row in rows] == [
        (row.source, row.start, row.kept, row.stage, row.reason) for row in ROWS
    ]
    assert rows[1]["measures"] == {"motion": 1.0, "text": 0.25} and rows[1]["threshold"] == 2.0
    assert rows[0]["measures"] == {"motion": 1.5, "text": None} and rows[3]["clip"] is None
    assert [row["frames"] for row in decisions.read(directory, ("frames",))] == [9, 9, 2, None]


def test_any_reader_of_parquet_finds_a_column_a_measure(directory: Path):
    table = pq.read_table(directory / FOLDER)
    assert table.column("measure.motion").to_pylist() == [1.5, 1.0, None, None]


def test_bytes_do_not_depend_on_the_order_of_arrival():
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert shuffled != ROWS and to_parquet(shuffled, ("motion",)) == to_parquet(ROWS, ("motion",))


def test_reasons_are_counted_in_the_order_of_the_funnel(directory: Path):
    tallies = decisions.tally(directory)
    assert [stage for stage, _ in tallies] == ["read", "split", "filter", "kept"]
    assert tallies["filter", "motion below 2"] == decisions.Tally(1, 1, 9, 0.5, "a.mp4#9-18")
    assert tallies["split", "too short for a clip"] == decisions.Tally(1, 0, 2, 0.1, "a.mp4")


def test_a_data_set_without_a_table_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match="has no table of decisions: it was not made by `videodit data build`"):
        next(decisions.read(tmp_path))
