import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from videodit_data.storage import manifest, records, shard_check
from videodit_data.storage.dataset import Dataset, open_directory
from videodit_data.storage.shard_check import ChangedShard, ShardCheck

SHARDS = 3
Change = Callable[[Path, Path], object]  # of a shard; the second is another data set with shards of its size


def build(directory: Path, seed: int = 0) -> Path:
    """Write a data set; all seeds have shards of one size."""

    def record(number: int) -> records.Record:
        facts = {"fps": 8.0, "height": 8, "width": 8, "frames": 3, "source": "tests", "licence": "CC0-1.0"}
        return records.from_video(f"clip-{number}", bytes([seed, number]) * 20, ["a cube"], **facts)

    manifest.build(directory, lambda part: map(record, part), SHARDS, shards=SHARDS, info={"seed": seed})
    return directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "set")


@pytest.fixture
def in_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have even the smallest data set hashed by a process."""
    monkeypatch.setattr(shard_check, "AT_ONCE", -1)
    monkeypatch.setattr(shard_check, "AT_END", -1)


@pytest.fixture
def stuck(in_background: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process wait for hours after the first chunk."""
    monkeypatch.setattr(shard_check, "RATE", 1.0)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes soon, on a machine that is as busy as it may be."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def check_all(dataset: Dataset) -> ShardCheck:
    """Check all shards as a run does, batch by batch."""
    with ShardCheck([dataset]) as check:

        def polled() -> bool:
            check.poll()
            return check.checked == check.total

        until(polled)
        check.finish()
    return check


def exchange(shard: Path, other: Path) -> None:
    assert shard.stat().st_size == (other / shard.name).stat().st_size
    shutil.copy(other / shard.name, shard)


def flip(shard: Path, other: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[len(data) // 2 - 1] ^= 1
    shard.write_bytes(data)


CHANGES = {
    "exchanged": exchange,
    "one bit": flip,
    "a byte short": lambda shard, other: os.truncate(shard, shard.stat().st_size - 1),
    "a byte long": lambda shard, other: shard.write_bytes(shard.read_bytes() + b"\0"),
    "emptied": lambda shard, other: os.truncate(shard, 0),
}


def check_changes(folder: Path, other: Path, number: int, changes: Iterable[Change]) -> None:
    """Check that every change of a shard is named, and that the data set is as good as before without it."""
    dataset = open_directory(folder)
    shard = folder / dataset.manifest.shards[number].name
    original = shard.read_bytes()
    for change in changes:
        change(shard, other)
        with pytest.raises(ChangedShard) as raised:
            check_all(dataset)
        assert str(raised.value) == (
            f"{folder} is damaged or was exchanged: {shard.name} has sha256 {manifest.sha256(shard)}, not "
            f"{dataset.manifest.shards[number].sha256}; build or copy the data set again."
        )
        shard.write_bytes(original)
    assert check_all(dataset).checked == SHARDS


@pytest.mark.parametrize("number", range(SHARDS))
def test_a_shard_that_changed_is_named_with_its_hashes(folder: Path, tmp_path: Path, number: int):
    check_changes(folder, build(tmp_path / "other", seed=1), number, CHANGES.values())


def test_so_is_one_that_a_process_hashes(folder: Path, tmp_path: Path, in_background: None):
    check_changes(folder, build(tmp_path / "other", seed=1), 1, [exchange])


@pytest.mark.parametrize("mode", ["here", "in_background"])
def test_a_shard_that_cannot_be_read_is_named(folder: Path, mode: str, request: pytest.FixtureRequest):
    if mode == "in_background":
        request.getfixturevalue(mode)
    dataset = open_directory(folder)
    shard = folder / dataset.manifest.shards[1].name
    shard.unlink()
    shard.mkdir()
    with pytest.raises(
        ChangedShard, match=rf"{shard.name} cannot be read \((Is a directory|a folder, not a regular file)\), not "
    ):
        check_all(dataset)


def test_embeddings_are_checked_and_unknown_hashes_are_not(folder: Path):
    dataset = open_directory(folder)
    text = manifest.TextShard("text-00000-of-00001.array_record", "0" * 64, 3, 1)
    (folder / text.name).write_bytes(b"abc")
    described = replace(dataset.manifest, texts=(text,))
    (folder / manifest.FILE).write_text(described.to_json(), encoding="utf-8")
    with pytest.raises(ChangedShard, match=rf"{text.name} has sha256 ba7816bf8f01cfea"):
        ShardCheck([open_directory(folder)])
    assert ShardCheck([replace(dataset, hashes={})]).total == 0


def test_processes_share_the_shards_and_none_is_hashed_twice(folder: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    hashed: list[str] = []
    compute = shard_check.sha256
    monkeypatch.setattr(shard_check, "sha256", lambda path: hashed.append(os.path.realpath(path)) or compute(path))
    datasets = [open_directory(path) for path in (folder, tmp_path / "link", build(tmp_path / "other", 1), folder)]
    checks = [ShardCheck(datasets, process, 4) for process in range(4)]
    assert sum(check.checked for check in checks) == sum(check.total for check in checks) == len(hashed) == 2 * SHARDS
    assert {Path(path).parent.name for path in hashed} == {"set", "other"} and len(set(hashed)) == 2 * SHARDS


def test_a_run_that_ends_first_says_how_many_were_checked(folder: Path, stuck: None, caplog: pytest.LogCaptureFixture):
    with ShardCheck([open_directory(folder)]) as check:
        process = check._process
        check.poll()
        check.finish()
    assert f"0 of {SHARDS} shards were compared" in caplog.text
    assert process.returncode == -signal.SIGKILL
    with ShardCheck([open_directory(folder)]) as check:
        check.check_rest()
    assert check.checked == SHARDS


def test_the_rest_is_hashed_here_when_the_process_is_ended(
    folder: Path, stuck: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(shard_check, "AT_END", 2**20)
    with ShardCheck([open_directory(folder)]) as check:
        process = check._process
        process.kill()
        until(lambda: check.poll() or process.returncode is not None)
        check.finish()
    assert check.checked == SHARDS and "ended early" in caplog.text


def test_a_process_that_cannot_be_started_stops_no_run(
    folder: Path, in_background: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sys, "executable", str(folder / "nowhere"))
    with ShardCheck([open_directory(folder)]) as check:
        check.poll()
        check.check_rest()
    assert check.checked == SHARDS and "cannot be checked in the background (No such file" in caplog.text


def test_the_process_has_the_lowest_priority(folder: Path, stuck: None):
    with ShardCheck([open_directory(folder)]) as check:
        pid = check._process.pid
        until(lambda: os.sched_getscheduler(pid) == os.SCHED_IDLE)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19


RUN = """
import sys, time
from videodit_data.storage import shard_check
from videodit_data.storage.dataset import open_directory
shard_check.AT_ONCE, shard_check.RATE = -1, 1.0
check = shard_check.ShardCheck([open_directory(sys.argv[1])])
print(check._process.pid, flush=True)
time.sleep(600)
"""


def test_the_process_dies_with_a_run_that_is_killed(folder: Path):
    with subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE) as run:
        pid = int(run.stdout.readline())
        until(lambda: os.sched_getscheduler(pid) == os.SCHED_IDLE)
        run.kill()
    until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    """Return whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
