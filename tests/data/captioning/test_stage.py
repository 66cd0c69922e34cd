import dataclasses
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from videodit_data.captioning import captioner as module
from videodit_data.captioning.captioner import Answer, Clip, Failure, Identity
from videodit_data.captioning.endpoint import Endpoint, EndpointConfig, EndpointDown
from videodit_data.captioning.lengths import LENGTHS, Length
from videodit_data.captioning.look import Look
from videodit_data.captioning.stage import ANSWERS, Hopeless, caption_dataset
from videodit_data.inspect import summary
from videodit_data.storage import manifest, records

from tests.data.captioning import stub as server
from tests.data.captioning.stub import Stub, drips, says, sends, text_of, valid_reply

SHORT = (LENGTHS["short"],)
ME = Identity("me", settings={"version": 1})


class RecordingCaptioner:
    """A captioner that records the ids of its clips."""

    def __init__(self, bad: Sequence[str] = ()):
        self.clip_ids: list[str] = []
        self.calls: list[int] = []
        self.bad, self._lock = bad, threading.Lock()

    def __call__(self, clips: Sequence[Clip], lengths: Sequence[Length]) -> list[Answer]:
        with self._lock:
            self.calls.append(len(clips))
            self.clip_ids += [clip.id for clip in clips]
        return [
            Failure("dull") if clip.id in self.bad else {each.name: text_of(each.name, clip.id) for each in lengths}
            for clip in clips
        ]


@pytest.fixture(scope="module")
def footage(data_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of twelve clips of 5 to 16 frames in three shards."""
    return data_set(tmp_path_factory.mktemp("footage") / "set", [5 + n for n in range(12)], shards=3)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def answers(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / ANSWERS).read_text().splitlines()]


def captions_sent(stub: Stub) -> list[str]:
    """Return the known captions in each request of the stub: these name the clip."""
    return [body["messages"][1]["content"][-1]["text"].splitlines()[1] for _, _, body in stub.requests]


@pytest.mark.parametrize("keep", ["before", "after", "none"])
def test_the_same_videos_get_captions_with_their_sources(footage: Path, tmp_path: Path, keep: str):
    captioner, lengths = RecordingCaptioner(bad=["clip-003"]), (LENGTHS["short"], LENGTHS["long"])
    result = caption_dataset(footage, tmp_path / "set", captioner, ME, lengths=lengths, keep=keep, batch=5)
    assert result.info["captions"] == {"captioned": 11, "failed": {"dull": 1}}
    assert result.info["captioner"]["model"] == "me" and result.origins == manifest.load(footage).origins
    assert sorted(captioner.calls) == [2, 5, 5]
    for old, new in zip(manifest.records(footage), manifest.records(tmp_path / "set"), strict=True):
        assert (new.id, new.video, new.sha256, new.frames) == (old.id, old.video, old.sha256, old.frames)
        texts = tuple(text_of(name, old.id) for name in ("short", "long"))
        new_sources, old_sources = ("me, short", "me, long"), ("", "")
        if old.id == "clip-003":
            assert new == old
        elif keep == "before":
            assert (new.captions, new.caption_sources) == (old.captions + texts, old_sources + new_sources)
        elif keep == "after":
            assert (new.captions, new.caption_sources) == (texts + old.captions, new_sources + old_sources)
        else:
            assert (new.captions, new.caption_sources) == (texts, new_sources)
    lines = answers(tmp_path / "set")
    assert [line["clip"] for line in lines] == [record.id for record in manifest.records(footage)]
    assert [line["clip"] for line in lines if line.get("failed") == "dull"] == ["clip-003"]
    assert summary(tmp_path / "set")["info"]["captions"]["captioned"] == 11
    assert not (tmp_path / "set.partial").exists()


@pytest.mark.parametrize("keep", ["before", "after", "none"])
def test_empty_captions_are_neither_passed_nor_kept(footage: Path, tmp_path: Path, keep: str):
    source, clip_captions = manifest.records(footage), []
    captions = [("", "a cube", " "), ("",)]

    def make(numbers: range) -> Iterator[records.Record]:
        return (dataclasses.replace(source[n], captions=captions[n], caption_sources=()) for n in numbers)

    def captioner(clips: Sequence[Clip], lengths: Sequence[Length]) -> list[Answer]:
        clip_captions.extend(clip.captions for clip in clips)
        return RecordingCaptioner()(clips, lengths)

    manifest.build(tmp_path / "plain", make, 2, info={})
    caption_dataset(tmp_path / "plain", tmp_path / "set", captioner, ME, lengths=SHORT, keep=keep)
    assert clip_captions == [("a cube",), ()]
    first, second = manifest.records(tmp_path / "set")
    assert sorted(zip(first.captions, first.caption_sources, strict=True)) == sorted(
        [(text_of("short", first.id), "me, short"), *[("a cube", "")] * (keep != "none")]
    )
    assert (second.captions, second.caption_sources) == ((text_of("short", second.id),), ("me, short",))


@pytest.mark.parametrize(("batch", "threads"), [(1, 4), (3, 2), (100, 1)])
def test_batches_and_threads_change_no_byte(footage: Path, tmp_path: Path, batch: int, threads: int):
    for name, how in (("one", {}), ("other", {"batch": batch, "threads": threads})):
        caption_dataset(footage, tmp_path / name, RecordingCaptioner(["clip-007"]), ME, lengths=SHORT, **how)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("stage", "count"), [("caption", 1), ("caption", 5), ("caption", 12), ("write", 4), ("write", 12)]
)
def test_an_interrupted_run_asks_nothing_twice_and_ends_with_the_same_bytes(
    footage: Path, tmp_path: Path, stage: str, count: int, threads: int
):
    def stop(*step: object) -> None:
        if step[:2] == (stage, count):
            raise KeyboardInterrupt

    caption_dataset(footage, tmp_path / "whole", RecordingCaptioner(["clip-002"]), ME, lengths=SHORT)
    captioner = RecordingCaptioner(["clip-002"])
    with pytest.raises(KeyboardInterrupt):
        caption_dataset(footage, tmp_path / "set", captioner, ME, lengths=SHORT, threads=threads, progress=stop)
    assert not (tmp_path / "set").exists()
    assert stage != "caption" or count == 12 or len(captioner.clip_ids) <= 12
    caption_dataset(footage, tmp_path / "set", captioner, ME, lengths=SHORT, threads=threads)
    assert sorted(captioner.clip_ids) == [f"clip-{n:03d}" for n in range(12)]
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_one_process_at_a_time_captions_into_a_directory(footage: Path, tmp_path: Path):
    captioner = RecordingCaptioner()
    with manifest.lock(tmp_path / "set"), pytest.raises(ValueError, match="set is in use by"):
        caption_dataset(footage, tmp_path / "set", captioner, ME, lengths=SHORT)
    assert not captioner.calls
    assert not list(tmp_path.iterdir())


def test_a_second_run_does_nothing_and_another_question_is_refused(footage: Path, tmp_path: Path):
    captioner, out = RecordingCaptioner(["clip-000"]), tmp_path / "set"
    first = caption_dataset(footage, out, captioner, ME, lengths=SHORT)
    before = contents(out)
    assert caption_dataset(footage, out, captioner, ME, lengths=SHORT, batch=4, threads=2) == first
    for change in ({"lengths": (LENGTHS["long"],)}, {"keep": "none"}, {"look": Look(3, 64)}):
        with pytest.raises(ValueError, match="made from other input"):
            caption_dataset(footage, out, captioner, ME, **{"lengths": SHORT} | change)
    with pytest.raises(ValueError, match="made from other input"):
        caption_dataset(footage, out, captioner, Identity("another"), lengths=SHORT)
    assert len(captioner.clip_ids) == 12 and contents(out) == before


def test_good_answers_of_an_earlier_result_are_taken(footage: Path, tmp_path: Path):
    caption_dataset(footage, tmp_path / "first", RecordingCaptioner(["clip-001", "clip-005"]), ME, lengths=SHORT)
    captioner = RecordingCaptioner()
    result = caption_dataset(footage, tmp_path / "second", captioner, ME, lengths=SHORT, reuse=tmp_path / "first")
    assert captioner.clip_ids == ["clip-001", "clip-005"] and result.info["captions"] == {"captioned": 12, "failed": {}}
    other = RecordingCaptioner()
    caption_dataset(footage, tmp_path / "third", other, Identity("you"), lengths=SHORT, reuse=tmp_path / "first")
    assert len(other.clip_ids) == 12
    with pytest.raises(ValueError, match="no data set that was captioned here"):
        caption_dataset(footage, tmp_path / "fourth", captioner, ME, lengths=SHORT, reuse=footage)


def test_a_captioner_sees_frames_from_all_over_the_clip(footage: Path, numbers: Callable[..., list[int]]):
    record = manifest.records(footage)[11]  # 16 frames, frame i says i
    clip = Look(4, 24).at(record)
    assert clip.frames.shape == (4, 16, 24, 3) and numbers(clip.frames) == [1, 5, 9, 13]
    assert (clip.id, clip.seconds, clip.fps, clip.captions) == (record.id, 2.0, 8.0, record.captions)
    assert numbers(Look(99, 999).at(record).frames) == list(range(16))
    assert numbers(Look(1, 999).at(record).frames) == [7]
    with pytest.raises(ValueError, match="at least one frame"):
        Look(0, 8)


def test_clips_that_cannot_be_decoded_are_named(tmp_path: Path, footage: Path):
    good = manifest.records(footage)[0]
    some = [good, records.Record(**{**vars(good), "id": "broken", "video": b"nothing"})]
    manifest.build(tmp_path / "in", lambda numbers: (some[n] for n in numbers), 2, info={})
    captioner = RecordingCaptioner()
    result = caption_dataset(tmp_path / "in", tmp_path / "out", captioner, ME, lengths=SHORT, batch=2)
    assert captioner.clip_ids == ["clip-000"] and result.info["captions"]["failed"] == {"not decodable": 1}
    assert manifest.records(tmp_path / "out")[1] == some[1]
    assert "clip broken" in answers(tmp_path / "out")[1]["detail"]


def test_texts_of_ones_own_captioner_are_looked_at_too(footage: Path, tmp_path: Path):
    def careless(clips: Sequence[Clip], lengths: Sequence[Length]) -> list[Answer]:
        return [{"short": text} for text in ("", "word " * 99, "I'm sorry, but no.", f" {text_of('short')}\n")]

    result = caption_dataset(footage, tmp_path / "set", careless, ME, lengths=SHORT, batch=4)
    assert result.info["captions"] == {"captioned": 3, "failed": {"empty": 3, "refusal": 3, "too long": 3}}
    assert manifest.records(tmp_path / "set")[3].captions[0] == text_of("short")


@pytest.mark.parametrize(
    ("answers", "words"), [([], "gave 0 answers"), (["text"], "is a str; expected a mapping from length to text")]
)
def test_other_things_than_answers_end_the_run(footage: Path, tmp_path: Path, answers: list, words: str):
    with pytest.raises(ValueError, match=words):
        caption_dataset(footage, tmp_path / "set", lambda clips, lengths: answers, ME, lengths=SHORT)
    assert not (tmp_path / "set").exists()


def test_an_error_of_the_captioner_ends_the_run_and_answers_stay(footage: Path, tmp_path: Path):
    def breaks(clips: Sequence[Clip], lengths: Sequence[Length]) -> list[Answer]:
        if "clip-006" in [clip.id for clip in clips]:
            raise RuntimeError("out of memory")
        return captioner(clips, lengths)

    captioner = RecordingCaptioner()
    with pytest.raises(RuntimeError, match="out of memory"):
        caption_dataset(footage, tmp_path / "set", breaks, ME, lengths=SHORT, batch=2)
    caption_dataset(footage, tmp_path / "set", captioner, ME, lengths=SHORT)
    assert sorted(captioner.clip_ids) == [f"clip-{n:03d}" for n in range(12)]


@pytest.mark.parametrize("bad", [{"batch": 0}, {"threads": 0}])
def test_bad_requests_write_nothing(footage: Path, tmp_path: Path, bad: dict):
    with pytest.raises(ValueError, match="at least one clip a batch and one thread"):
        caption_dataset(footage, tmp_path / "set", RecordingCaptioner(), ME, lengths=SHORT, **bad)
    with pytest.raises(ValueError, match="after at least one failed clip, not 0"):
        caption_dataset(footage, tmp_path / "set", RecordingCaptioner(), ME, lengths=SHORT, hopeless=0)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "file").touch()
    with pytest.raises(ValueError, match="is not a data set; choose another directory"):
        caption_dataset(footage, tmp_path / "notes", RecordingCaptioner(), ME, lengths=SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (1, 3), (4, 2)])
def test_a_captioner_that_fails_from_the_start_is_given_up_and_asked_again(
    footage: Path, tmp_path: Path, batch, threads
):
    how, every = (
        {"lengths": SHORT, "batch": batch, "threads": threads, "hopeless": 8},
        [f"clip-{n:03d}" for n in range(12)],
    )
    with pytest.raises(Hopeless, match=r"The first \d+ clips .* all failed \(\d+ dull; .* the same command asks again"):
        caption_dataset(footage, tmp_path / "set", RecordingCaptioner(every), ME, **how)
    assert not (tmp_path / "set").exists()
    recovering = RecordingCaptioner(every[:7])  # one is good before it is hopeless
    assert caption_dataset(footage, tmp_path / "set", recovering, ME, **how).info["captions"]["captioned"] == 5
    assert sorted(recovering.clip_ids) == every
    result = caption_dataset(footage, tmp_path / "all failed", RecordingCaptioner(every), ME, **how | {"hopeless": 13})
    assert result.info["captions"] == {"captioned": 0, "failed": {"dull": 12}}


def test_latents_show_nothing(footage: Path, tmp_path: Path):
    latent = np.zeros((1, 4, 6, 2), np.float32)
    some = records.with_latent(manifest.records(footage)[0], latent, latent, fps=8.0, frames=5, height=32, width=48)
    manifest.build(tmp_path / "in", lambda numbers: [some], 1, info={})
    with pytest.raises(ValueError, match="holds latents, which no captioner can see"):
        caption_dataset(tmp_path / "in", tmp_path / "out", RecordingCaptioner(), ME, lengths=SHORT)
    with pytest.raises(ValueError, match=r"^tfds:balls/train\?fps=8 has single pictures and no video files"):
        caption_dataset("tfds:balls/train?fps=8", tmp_path / "out", RecordingCaptioner(), ME, lengths=SHORT)


# An endpoint.


def run(footage: Path, out: Path, asker: Endpoint, threads: int = 3) -> manifest.Manifest:
    return caption_dataset(footage, out, asker, asker.identity, lengths=SHORT, threads=threads)


def test_whatever_the_server_does_each_clip_is_captioned_or_named(footage: Path, tmp_path: Path, stub, endpoint):
    bad = [
        sends(b"", 500),
        says("no"),
        sends(b"<html>"),
        server.cuts,
        sends(b"", 429, Retry_After="3"),
        drips("body"),
        says("I'm sorry, no."),
    ]
    stub.react = lambda number: bad[number % len(bad)] if number % 3 else valid_reply
    result = run(footage, tmp_path / "set", endpoint(attempts=2, deadline_seconds=0.2))
    counts = result.info["captions"]
    assert counts["captioned"] + sum(counts["failed"].values()) == result.clips == 12
    assert counts["captioned"] and counts["failed"]
    for line, old, new in zip(
        answers(tmp_path / "set"), manifest.records(footage), manifest.records(tmp_path / "set"), strict=True
    ):
        assert ("captions" in line) != ("failed" in line)
        assert len(new.captions) == len(old.captions) + ("captions" in line)


def test_a_dead_server_ends_the_run_and_the_next_one_asks_only_the_rest(footage: Path, tmp_path: Path, stub, endpoint):
    stub.react = lambda number: valid_reply if number < 5 else sends(b"", 500)
    with pytest.raises(EndpointDown, match="failed 6 times in a row"):
        run(footage, tmp_path / "set", endpoint(dead_after=6))
    requested = set(captions_sent(stub)[:5])
    assert not (tmp_path / "set").exists() and len(requested) == 5
    stub.requests.clear()
    stub.always(valid_reply)
    result = run(footage, tmp_path / "set", endpoint())
    assert result.info["captions"] == {"captioned": 12, "failed": {}}
    assert len(stub.requests) == 7 and not requested & set(captions_sent(stub))
    run(footage, tmp_path / "whole", endpoint(), threads=1)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_the_key_is_in_no_file(footage: Path, tmp_path: Path, stub, endpoint, monkeypatch, caplog):
    monkeypatch.setenv("EYES_KEY", key := "sk-0123456789")
    caplog.set_level(logging.DEBUG)
    stub.react = lambda number: [valid_reply, sends(key.encode(), 500), says(key)][number % 3]
    with pytest.raises(KeyboardInterrupt):
        caption_dataset(
            footage,
            tmp_path / "set",
            endpoint(key_env="EYES_KEY", attempts=1),
            endpoint().identity,
            lengths=SHORT,
            progress=lambda *step: (_ for _ in ()).throw(KeyboardInterrupt) if step[1] == 6 else None,
        )
    assert (tmp_path / "set.partial" / "answers.jsonl").stat().st_size
    assert all(key.encode() not in data for data in contents(tmp_path / "set.partial").values())
    run(footage, tmp_path / "set", endpoint(key_env="EYES_KEY", attempts=1))
    assert all(key.encode() not in data for data in contents(tmp_path / "set").values())
    assert key not in caplog.text


def test_an_interrupted_process_loses_no_answer(footage: Path, tmp_path: Path, stub):
    """Send SIGINT during three requests: these are awaited and recorded, and no request is repeated."""
    under_way, interrupted = threading.Event(), threading.Event()

    def slowly(number: int) -> server.Reaction:
        def react(handler: server.Handler) -> None:
            if number == 5:
                under_way.set()
            interrupted.wait()
            clip = int(re.search(r"clip (\d+) gets", json.dumps(handler.body))[1])
            stub.over.wait(0.02 * (9 - clip))  # the one that is next in turn comes last
            valid_reply(handler)

        return react

    stub.react = lambda number: valid_reply if number < 3 else slowly(number)
    # The background jobs of a shell start with interrupts ignored.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    patient = "from videodit.cli import main, signals; from videodit_data.captioning import stage"
    patient += "; stage._INTERRUPT_SECONDS = 30; signals.GRACE_SECONDS = 60"  # this machine may be busy
    program = f"{heeding}; {patient}; raise SystemExit(main())"
    command = [sys.executable, "-c", program, "data", "caption", str(footage), "--out"]
    command += [str(tmp_path / "set"), "--endpoint", stub.url, "--model", "eyes", "--lengths", "short"]
    command += ["--concurrency", "3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert under_way.wait(60)
    process.send_signal(signal.SIGINT)
    interrupted.set()
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "the same command resumes" in stderr, stderr
    first = captions_sent(stub)
    assert 6 <= len(first) < 12
    stub.always(valid_reply)
    asker = Endpoint(EndpointConfig(stub.url, "eyes"))
    caption_dataset(footage, tmp_path / "set", asker, asker.identity, lengths=SHORT)
    assert sorted(captions_sent(stub)) == sorted(set(captions_sent(stub))) and len(captions_sent(stub)) == 12
    assert manifest.load(tmp_path / "set").info["captions"] == {"captioned": 12, "failed": {}}


# Captioners by name.


def test_a_callable_is_found_by_name_and_known_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "my_eyes.py"
    file.write_text("def caption(clips, lengths):\n    return []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    captioner, identity = module.load("my_eyes:caption")
    assert (
        captioner([], []) == []
        and identity.model == "my_eyes:caption"
        and identity.source("short").endswith(":caption, short")
    )
    file.write_text("def caption(clips, lengths):\n    return [{}]\n")
    assert module.identity_of(captioner, "my_eyes:caption").digest != identity.digest
    config = EndpointConfig("http://localhost", "eyes")
    assert module.identity_of(Endpoint(config), "x") == Endpoint(config).identity
    for name, words in (
        ("my_eyes", "module:function"),
        ("my_eyes:none", "no callable"),
        ("my_nose:x", "cannot be imported"),
    ):
        with pytest.raises(ValueError, match=words):
            module.load(name)
