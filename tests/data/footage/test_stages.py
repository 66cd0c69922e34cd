from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from videodit_data.captions import Captions
from videodit_data.footage import stages
from videodit_data.footage.analyse import AnalysisConfig
from videodit_data.footage.candidates import Candidate, Spot
from videodit_data.footage.sources import Source
from videodit_data.footage.spec import Clip
from videodit_data.isolate import Limits
from videodit_data.transcode import Recode
from videodit_data.video import VideoError

FACTS = {"fps": 8.0, "frames": 8, "height": 32, "width": 48, "sha256": "0" * 64, "bytes": 1}
CANDIDATE = Candidate(
    Spot("a.mp4#0-8", "a.mp4", "a.mp4", "0" * 64, 0, 8), Clip(0, 8, 0.0, {}, ()), 8.0, 32, 48, 8, Captions(("a",))
)


def cut(folder: Path, limits: Limits) -> Any:
    (found,) = stages.Cut(Recode(), limits, str(folder)).process(("", [CANDIDATE]))
    return found


def call(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def called(limits: Limits, function: str, path: str, name: str, **arguments: Any) -> Any:
        if error is not None:
            raise error
        Path(arguments["out"]).write_bytes(b"x")
        return FACTS

    monkeypatch.setattr(stages, "_call", called)


def test_more_time_brings_back_a_clip_that_took_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    call(monkeypatch, VideoError("a.mp4: takes longer than 1 seconds."))
    late = cut(tmp_path, Limits(seconds=1))
    assert isinstance(late, beam.pvalue.TaggedOutput) and late.value.decision.reason == "takes longer than allowed"
    call(monkeypatch, None)
    assert isinstance(cut(tmp_path, Limits(seconds=1)), beam.pvalue.TaggedOutput)  # as it was noted
    assert isinstance(cut(tmp_path, Limits(seconds=2)), stages.Staged)


def test_what_the_machine_does_is_noted_of_no_clip_and_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    call(monkeypatch, RuntimeError("a.mp4: cannot be read or worked on now (No space left on device)."))
    with pytest.raises(RuntimeError, match="No space left"):
        cut(tmp_path, Limits())
    with pytest.raises(RuntimeError, match="No space left"):
        source = Source("a.mp4", "a.mp4", "0" * 64, "tests", "CC0-1.0")
        list(stages.Analyse(AnalysisConfig(), Limits(), str(tmp_path)).process(source))
    assert not list(tmp_path.iterdir())
    call(monkeypatch, None)
    assert isinstance(cut(tmp_path, Limits()), stages.Staged)
