import dataclasses
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from videodit_data.caption_files import Captions, Row
from videodit_data.footage import stages
from videodit_data.footage.analyse import AnalysisConfig
from videodit_data.footage.analysis_result import Analysis, Clip
from videodit_data.footage.candidates import Candidate, Spot
from videodit_data.footage.config import BuildConfig
from videodit_data.footage.sources import Source, gather
from videodit_data.video import VideoError, VideoInfo
from videodit_data.video.isolate import Limits
from videodit_data.video.transcode import Recode

FACTS = {"fps": 8.0, "frames": 8, "height": 32, "width": 48, "sha256": "0" * 64, "bytes": 1}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "a.mp4").write_text("a film")
    (tmp_path / "notes").mkdir()
    return gather([str(tmp_path / "a.mp4")]).sources[0]


def run_cut(source: Source, limits: Limits) -> Any:
    spot = Spot("a.mp4#0-8", source.name, source.path, source.hash, 0, 8, source.state)
    candidate = Candidate(spot, Clip(0, 8, 0.0, {}, ()), 8.0, 32, 48, 8, Captions(("a",)))
    (output,) = stages.Cut(Recode(), limits, notes(source)).process(("", [candidate]))
    return output


def analyze(source: Source) -> list[Any]:
    return list(stages.Analyze(AnalysisConfig(), Limits(), notes(source)).process(source))


def notes(source: Source) -> str:
    return str(Path(source.path).with_name("notes"))


def test_captions_that_fit_no_clip_are_decided(source: Source, monkeypatch: pytest.MonkeyPatch):
    clips = tuple(Clip(start, 8, start / 8, {}, ()) for start in (0, 8))
    analysis = Analysis(VideoInfo(8.0, 16, 32, 48, 2.0, "h264", "mp4"), (), clips)
    monkeypatch.setattr(stages, "call", lambda *_, **__: analysis.to_json())
    fields_by_text = {
        "b": {"clip": "a.mp4#0-9"},
        "a": {"clip": "a.mp4#0-8"},
        "c": {"start": 1.6},
        "d": {"stop": 0.7},
        "e": {},
    }
    rows = tuple(Row("a.mp4", Captions((text,)), **fields) for text, fields in fields_by_text.items())
    clips_, decided = [], []
    for each in analyze(dataclasses.replace(source, rows=rows)):
        decided.append(each.value.decision) if isinstance(each, beam.pvalue.TaggedOutput) else clips_.append(each)
    assert [clip.captions.texts for clip in clips_] == [("a",), ("e",)]
    assert [(each.source, each.stage, each.reason, each.detail) for each in decided] == [
        ("a.mp4", "captions", "a caption of a clip that there is not", "a.mp4#0-9: b"),
        ("a.mp4", "captions", "a caption of less than half of any clip", "1.6 s to the end: c"),
    ]
    assert len({each.order for each in decided}) == 2


def test_analyses_that_other_versions_made_are_made_again(source: Source, monkeypatch: pytest.MonkeyPatch):
    calls = []
    analysis = Analysis(VideoInfo(8.0, 16, 32, 48, 2.0, "h264", "mp4"), (), ()).to_json()
    monkeypatch.setattr(stages, "call", lambda *_, **__: calls.append(1) or analysis)
    assert {each.split()[0] for each in stages.MADE_BY[1:]} == {"av", "cv2", "scenedetect"}
    for made_by, times in ((stages.MADE_BY, 1), (stages.MADE_BY, 1), ((2, "av 99"), 2)):
        monkeypatch.setattr(stages, "MADE_BY", made_by)
        analyze(source)
        assert len(calls) == times


def call(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def called(limits: Limits, function: str, path: str, name: str, **arguments: Any) -> Any:
        if error is not None:
            raise error
        Path(arguments["out"]).write_bytes(b"x")
        return FACTS

    monkeypatch.setattr(stages, "call", called)


def test_more_time_brings_back_a_clip_that_took_too_long(source: Source, monkeypatch: pytest.MonkeyPatch):
    call(monkeypatch, VideoError("a.mp4: takes longer than 1 seconds."))
    late = run_cut(source, Limits(seconds=1))
    assert isinstance(late, beam.pvalue.TaggedOutput) and late.value.decision.reason == "takes longer than allowed"
    call(monkeypatch, None)
    assert isinstance(run_cut(source, Limits(seconds=1)), beam.pvalue.TaggedOutput)  # as it was noted
    assert isinstance(run_cut(source, Limits(seconds=2)), stages.Staged)


def test_what_the_machine_does_is_noted_of_no_clip_and_no_source(source: Source, monkeypatch: pytest.MonkeyPatch):
    call(monkeypatch, RuntimeError("a.mp4: cannot be read or worked on now (No space left on device)."))
    for stage in (lambda: run_cut(source, Limits()), lambda: analyze(source)):
        with pytest.raises(RuntimeError, match="No space left"):
            stage()
    assert not list(Path(notes(source)).iterdir())
    call(monkeypatch, None)
    assert isinstance(run_cut(source, Limits()), stages.Staged)


@pytest.mark.parametrize("error", [None, VideoError("a.mp4: no frame.")])
def test_a_file_that_changed_after_it_was_hashed_is_found_out(
    source: Source, monkeypatch: pytest.MonkeyPatch, error: Exception | None
):
    call(monkeypatch, error)
    Path(source.path).write_text("another film")
    stages_ = [lambda: run_cut(source, Limits())] + ([] if error is None else [lambda: analyze(source)])
    for stage in stages_:
        with pytest.raises(ValueError, match=r"a\.mp4 changed while the data set was built; run the command again\."):
            stage()
    Path(source.path).unlink()
    for stage in stages_:
        with pytest.raises(RuntimeError, match=r"a\.mp4: cannot be read now \(No such file"):
            stage()
    assert not list(Path(notes(source)).iterdir())


def test_long_footage_has_more_than_an_hour():
    assert BuildConfig().limits.time(20 * 2**30) > 24 * 3600
