import base64
import io
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from videodit_data.footage import decisions, quality_report
from videodit_data.footage.quality_report import render, write_report

from tests.data.mutations import ODD


class Page(HTMLParser):
    """A parsed page: tags with their attributes, and texts."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        assert not self.open, f"tags left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    def pictures(self, kind: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == "img" and attrs["src"].startswith(f"data:{kind}")]


@pytest.fixture(scope="module")
def path(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "new" / "report.html"
    write_report(built, path)
    return path


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(path: Path, page: Page):
    links = [attrs[name] for _, attrs in page.tags for name in ("src", "srcset", "href") if name in attrs]
    assert links and all(link.startswith("data:") for link in links)
    assert not re.search(r"url\(|@import|https?:", path.read_text())


def test_the_funnel_goes_from_all_footage_to_what_is_kept(built: Path, page: Page):
    rows = list(decisions.read(built))
    total, kept_seconds = (sum(row["seconds"] or 0 for row in rows if row["kept"] >= least) for least in (False, True))
    start = page.texts.index("clips dropped")
    table = page.texts[start : page.texts.index("Reasons")]
    assert table[3:5] == ["footage read", f"{total:.1f} s"] and table[-1] == f"{kept_seconds:.1f} s"
    steps = [text for text in table if text in ("long enough", "luminance", "static", "captions", "duplicates")]
    assert steps == ["long enough", "luminance", "static", "captions", "duplicates"]


def test_every_measure_and_reason_is_drawn(built: Path, page: Page):
    rows = list(decisions.read(built))
    measured = {name for row in rows for name, value in row["measures"].items() if value is not None}
    plots = [attrs["alt"] for attrs in page.pictures("image/svg")]
    assert {alt.split()[2] for alt in plots if alt.startswith("Histogram")} == measured
    assert {row["reason"] for row in rows if row["reason"]} <= set(page.texts)
    for name in ("cut.mp4", "text.mp4", "gone.mp4", "notes.md"):
        assert name in page.texts


def test_contact_sheets_show_kept_and_dropped_clips_and_pairs_of_duplicates(page: Page):
    alts = [attrs["alt"] for attrs in page.pictures("image/jpeg")]
    assert sum(alt.endswith(("more.mp4#0-30", "more.mp4#30-60", "one.mp4#0-30", "two.mp4#0-30")) for alt in alts) >= 2
    for part in ("dark.mp4#0-30", "still.mp4#0-30", "short.mp4#0-10", "silent.mp4#0-30"):
        assert f"First, middle and last frame of {part}" in alts
    assert alts.count("Frames of one.mp4#0-30") == 2 and "Frames of sub/copy.mp4#0-30" in alts
    first = page.pictures("image/jpeg")[0]["src"].split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(first))).size == (3 * 180, 120)


def test_the_file_is_written_whole(path: Path):
    assert path.read_text(encoding="utf-8").endswith("</html>") and len(list(path.parent.iterdir())) == 1


def test_a_data_set_that_was_not_built_has_no_report(tmp_path: Path, data_set):
    with pytest.raises(ValueError, match="has no table of decisions"):
        render(data_set(tmp_path / "set", [5]))
    with pytest.raises(ValueError, match="is not a data set"):
        write_report(tmp_path / "nothing", tmp_path / "report.html")


def test_a_changed_table_is_shown_or_refused_in_one_sentence(built: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(quality_report, "_plot", lambda chart: ("", ""))
    directory = Path(shutil.copytree(built, tmp_path / "set"))
    (part,) = (directory / decisions.FOLDER).glob("*.parquet")
    table, rng, counts = pq.read_table(part), random.Random("page"), [0, 0]
    kinds = {pa.string(): str, pa.int64(): int, pa.int32(): int, pa.float64(): float, pa.bool_(): bool}
    for _ in range(250):
        changed = table
        for name in rng.sample(table.column_names, rng.choice([1, 1, 2])):
            values, kind = table[name].to_pylist(), table.schema.field(name).type
            odd = [
                None,
                *(each for each in ODD if type(each) is kinds[kind] and each not in ("\ud800", 2**31, 2**53, 2**63)),
            ]
            for row in rng.sample(range(len(values)), 3):
                values[row] = rng.choice([*odd, *values])
            changed = changed.set_column(table.column_names.index(name), name, pa.array(values, kind))
        pq.write_table(changed, part)
        try:
            Page(render(directory))
            counts[0] += 1
        except ValueError as error:
            counts[1] += 1
            assert str(error).startswith(f"{part} is not a table of decisions (") and str(error).isprintable()
    assert min(counts) > 30
    pq.write_table(
        table.rename_columns(["measure.$x^{" if name == "measure.text" else name for name in changed.column_names]),
        part,
    )
    with pytest.raises(ValueError, match="expected a column of decisions"):
        render(directory)
