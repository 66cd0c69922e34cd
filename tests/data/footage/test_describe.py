import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from videodit_data.caption_files import Captions
from videodit_data.footage import decisions, describe, stages
from videodit_data.footage.analysis_result import Clip
from videodit_data.footage.build import build
from videodit_data.footage.candidates import Candidate, Spot
from videodit_data.footage.describe import CaptionerConfig
from videodit_data.footage.stages import Staged
from videodit_data.storage import manifest
from videodit_data.video.isolate import Limits

from tests.data.footage.building import CONFIG, IN_MEMORY
from tests.data.footage.captioner import FAIL_VARIABLE, LOG_VARIABLE, crowd


def test_kept_clips_are_captioned_once_each_and_an_interrupted_build_asks_nothing_twice(
    footage: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    captioner = CaptionerConfig(
        "tests.data.footage.captioner:caption", lengths="short", keep="before", concurrency=1, frames=3
    )
    config = dataclasses.replace(CONFIG, captioner=captioner, pictures=0)
    monkeypatch.setenv(LOG_VARIABLE, str(tmp_path / "asked"))
    monkeypatch.setenv(FAIL_VARIABLE, "two.mp4#30-60")

    def rebuild() -> None:
        build([str(footage)], tmp_path / "set", config, cache=str(built.with_name("cache")), beam_options=IN_MEMORY)

    with pytest.raises(RuntimeError, match="the captioner is out"):
        rebuild()
    assert not describe._open, "what has failed is not left to the next build"
    first = (tmp_path / "asked").read_text().splitlines()
    assert first and not (tmp_path / "set").exists()
    monkeypatch.delenv(FAIL_VARIABLE)
    rebuild()
    requests = (tmp_path / "asked").read_text().splitlines()
    assert requests[: len(first)] == first and len(set(requests)) == len(requests) == 6
    records = {record.id: record for record in manifest.records(tmp_path / "set")}
    assert sorted(records) == ["more.mp4#0-30", "more.mp4#30-60", "one.mp4#0-30", "two.mp4#0-30", "two.mp4#30-60"]
    first_shot = records["two.mp4#0-30"]
    assert first_shot.captions == ("the first shot", "a clip with the name two.mp4#0-30 of 3 frames")
    assert first_shot.caption_sources == ("file", "tests.data.footage.captioner:caption, short")
    assert records["one.mp4#0-30"].captions == ("what one.mp4 shows",)
    (silent,) = (row for row in decisions.read(tmp_path / "set") if row["clip"] == "silent.mp4#0-30")
    assert (silent["stage"], silent["reason"]) == ("caption", "too short")
    settings = manifest.load(tmp_path / "set").info["config"]["captioner"]
    assert settings["model"] == "tests.data.footage.captioner:caption" and settings["lengths"] == "short"


def clips(folder: Path, count: int, captions: tuple[str, ...]) -> list[Staged]:
    (folder / "clip").write_text("not a video")
    staged_clips = []
    for number in range(count):
        spot = Spot(f"{number}.mp4#0-8", f"{number}.mp4", "", "", 0, 8)
        candidate = Candidate(spot, Clip(0, 8, 0.0, {}, ()), 8.0, 32, 48, 8, Captions(captions))
        staged_clips.append(Staged(candidate, str(folder / "clip"), 8.0, 8, 32, 48, "0" * 64, 1))
    return staged_clips


def test_all_threads_of_a_worker_ask_a_captioner_about_so_many_clips_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = CaptionerConfig("tests.data.footage.captioner:crowd", lengths="short", concurrency=2)
    monkeypatch.setattr(describe.Ask, "_decode", lambda self, clip: clip)
    asks = [describe.Ask(config, Limits(), str(tmp_path)) for _ in range(4)]
    staged = clips(tmp_path, 16, ())
    monkeypatch.setattr(describe, "ask", lambda captioner, batch, lengths: captioner(batch, lengths))
    with ThreadPoolExecutor(4) as threads:
        parts = [staged[number::4] for number in range(4)]
        passed = list(threads.map(lambda part: len(list(part[0].process(part[1]))), zip(asks, parts, strict=True)))
    describe.stop()
    assert passed == [4] * 4 and crowd.most == 2


def test_a_clip_that_cannot_be_shown_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LOG_VARIABLE, str(tmp_path / "asked"))
    config = CaptionerConfig("tests.data.footage.captioner:caption", lengths="short", concurrency=1)
    asking = describe.Ask(config, CONFIG.limits, str(tmp_path))
    stages.resume()
    (dropped_clip,) = asking.process(clips(tmp_path, 1, ()))
    assert (dropped_clip.value.decision.stage, dropped_clip.value.decision.reason) == ("caption", "not decodable")
    assert dropped_clip.value.decision.detail.startswith("clip 0.mp4#0-8: not readable as a video")
    (kept_clip,) = asking.process(clips(tmp_path, 1, ("of a file",)))
    assert kept_clip.candidate.captions.texts == ("of a file",) and not (tmp_path / "asked").exists()
    describe.stop()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use": "http://localhost:1"}, "An endpoint needs the name of the model"),
        ({"use": "a:b", "lengths": "tiny"}, "No length is named 'tiny'"),
        ({"use": "a:b", "concurrency": 0}, "at least one clip, not 0"),
    ],
)
def test_captioners_that_cannot_be_are_refused(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        CaptionerConfig(**config)
    assert CaptionerConfig().identity() is None


def test_the_identity_of_an_endpoint_holds_no_address_and_no_speed():
    one, two = (
        CaptionerConfig(f"http://host{n}:80", model="m", concurrency=n, per_minute=float(n)).identity() for n in (1, 2)
    )
    assert one == two and "host" not in str(one)
