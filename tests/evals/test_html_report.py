import base64
import re
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser

import pytest

from videodit.evals.html_report import Adherence, Clip, KeyFigure, LossCurves, ReportData, render, write_report

MEDIA = bytes(range(256))


@dataclass(frozen=True)
class Verdict:
    kind: str
    value: str
    subject: str | None
    holds: bool
    measured: str


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its texts."""

    VOID = ("meta", "img", "source", "br", "link", "input")

    def __init__(self, html):
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

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def full(text="red"):
    records = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval/loss": 1.5, "eval/loss_t0.5": 1.2}]
    verdicts = (
        Verdict("colour", text, None, True, text),
        Verdict("motion", "left", "red", False, "right"),
    )
    return ReportData(
        title=text,
        summary=text,
        figures=(
            KeyFigure("PSNR", 31.25, "dB", at_least=28.0, note=text),
            KeyFigure("motion", 0.7996, at_least=0.8),
            KeyFigure("lost", float("nan"), at_least=1.0),
        ),
        adherence=(Adherence(text, 0.915, real=0.99, chance=0.25, statements=64), Adherence("count", 0.5)),
        losses=(LossCurves(text, records), LossCurves("VAE", records[:1])),
        clips=(Clip(text, MEDIA, verdicts=verdicts), Clip("still", MEDIA, "image/png")),
        provenance={"checkpoint": text, "seed": 0, "none": None, "config": {"depth": 8, "name": text}},
    )


@cache
def full_page(text="red"):
    return render(full(text))


def test_every_text_is_escaped():
    html = full_page("<script>alert('x')</script> & \"")
    assert "<script" not in html and html.count("&lt;script&gt;") >= 9 and "& " not in html
    page = Page(html)
    assert not page.named("script")


def test_the_page_needs_nothing_but_itself():
    page = Page(full_page())
    assert not page.named("link")
    links = [attrs[name] for _, attrs in page.tags for name in ("src", "srcset", "href") if name in attrs]
    assert links and all(link.startswith("data:") for link in links)
    assert not re.search(r"url\(|@import|https?:", full_page())
    assert "default-src 'none'" in str(page.named("meta"))


def test_clips_are_there_byte_for_byte():
    page = Page(full_page())
    (video,) = page.named("video")
    head, content = video["src"].split(",")
    assert head == "data:video/mp4;base64" and base64.b64decode(content) == MEDIA
    assert any(image["src"] == video["src"].replace("video/mp4", "image/png") for image in page.named("img"))


def test_every_plot_comes_for_light_and_dark():
    page = Page(full_page())
    sources = page.named("source")
    assert len(sources) == 1 + 2 + 1  # adherence; a run with time buckets; a run without
    assert all("dark" in source["media"] for source in sources)
    assert sum(image["src"].startswith("data:image/svg") for image in page.named("img")) == len(sources)


def test_verdicts_and_targets_have_a_sign_and_a_word():
    page = Page(full_page())
    assert "1 of 2 statements hold" in page.texts
    assert [attrs["title"] for attrs in page.named("span") if "title" in attrs] == ["holds", "does not hold"]
    assert "motion of the red object: left" in page.texts and "(measured: right)" in page.texts
    assert "✓ reaches 28 dB" in page.texts
    assert "0.7996" in page.texts and "✗ below 0.8" in page.texts
    assert "nan" in page.texts and "✗ below 1" in page.texts


def test_tables_mark_unknown_values():
    texts = Page(full_page()).texts
    row = texts.index("91.5%")
    assert texts[row - 1 : row + 4] == ["red", "91.5%", "99.0%", "25.0%", "64"]
    row = texts.index("count")
    assert texts[row : row + 5] == ["count", "50.0%", "n/a", "n/a", "n/a"]


def test_provenance_folds_what_is_nested():
    page = Page(full_page())
    assert [text for text in page.texts if text in ("checkpoint", "seed", "none", "config")] == [
        "checkpoint", "seed", "none", "config",
    ]  # fmt: skip
    assert len(page.named("details")) == 1 and '{ "depth": 8, "name": "red" }' in page.texts


def test_sections_without_content_are_left_out():
    page = Page(render(ReportData(title="Bare")))
    assert page.texts == ["Bare", "Bare"] and not page.named("section")


def test_the_file_is_written_whole_into_a_new_folder(tmp_path):
    path = tmp_path / "runs" / "quickstart" / "report.html"
    for title in ("first", "second"):
        write_report(path, ReportData(title=title))
        assert path.read_text(encoding="utf-8") == render(ReportData(title=title))
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_failed_report_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, ReportData(title="old"))
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="Circular"):
        write_report(path, ReportData(title="new", provenance={"config": endless}))
    assert "old" in path.read_text(encoding="utf-8")


def test_media_that_no_browser_plays_are_refused():
    with pytest.raises(ValueError, match="'video/avi' is not supported"):
        Clip("a prompt", MEDIA, "video/avi")
