import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from videodit_data.storage import directory_lock, lock_owner
from videodit_data.storage.directory_lock import DirectoryLock
from videodit_data.storage.lock_owner import Owner

HOLD = """
import sys, time
from pathlib import Path
from videodit_data.storage.directory_lock import DirectoryLock
with DirectoryLock(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "run.lock"


@pytest.fixture
def fast(monkeypatch):
    """Make heartbeats and their absence a matter of a second."""
    for name, seconds in (("HEARTBEAT_SECONDS", 0.1), ("SILENCE_SECONDS", 1.0), ("POLL_SECONDS", 0.05)):
        monkeypatch.setattr(directory_lock, name, seconds)


def leave(path, **changes):
    """Leave a lock file of another owner, who is this process but for what changes."""
    path.parent.mkdir(exist_ok=True)
    owner = dataclasses.replace(Owner.current(), **changes)
    path.write_bytes(owner.to_json())
    return owner


def hold(path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_one_at_a_time_and_nothing_is_left(path, caplog):
    with DirectoryLock(path, "run") as lock:
        lock.check()
        owner = Owner.from_json(path.read_bytes())
        assert (owner.pid, owner.host) == (os.getpid(), os.uname().nodename)
        with pytest.raises(ValueError, match=rf"run is in use by .* process {os.getpid()}, since .*, remove {path}"):
            DirectoryLock(path, "run").acquire()
        assert os.listdir(path.parent) == ["run.lock"]
    assert not os.listdir(path.parent)
    with pytest.raises(ZeroDivisionError), DirectoryLock(path, "run"):
        raise ZeroDivisionError
    assert not os.listdir(path.parent)
    assert not caplog.text


def test_a_lock_that_was_never_taken_is_no_matter(path):
    lock = DirectoryLock(path, "run")
    lock.check()
    lock.release()
    assert not path.parent.exists()


def test_a_killed_process_on_this_machine_is_followed_at_once_a_stopped_one_is_not(path, caplog):
    with hold(path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ValueError, match=f"run is in use by .*process {process.pid}, "):
            DirectoryLock(path, "run").acquire()
        process.kill()
        process.wait()
    with DirectoryLock(path, "run"):
        assert f"process {process.pid}," in caplog.text
        assert "run: took over the lock of" in caplog.text
    assert not os.listdir(path.parent)


@pytest.mark.parametrize("changes", [{"started": 1}, {"pid": 2**22 + 1}, {"pid": 2**80}], ids=str)
def test_a_number_of_a_process_that_another_one_has_now_is_none(path, changes):
    leave(path, **changes)
    with DirectoryLock(path, "run") as lock:
        lock.check()


def test_a_zombie_has_ended(path):
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    started = lock_owner._start_time(process.pid)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    leave(path, pid=process.pid, started=started)
    with DirectoryLock(path, "run"):
        process.wait()


def test_processes_of_another_container_are_told_by_the_lock_of_the_machine(path, monkeypatch):
    """A container that starts again has other processes with the same numbers."""
    monkeypatch.setattr(lock_owner, "_pid_namespace", lambda: "pid:[another]")
    with hold(path) as process:
        with pytest.raises(ValueError, match="in use by"):
            DirectoryLock(path, "run").acquire()
        process.kill()
        process.wait()
    with DirectoryLock(path, "run") as lock:
        lock.check()


def test_an_owner_on_another_machine_is_followed_only_after_silence(path, fast, caplog):
    leave(path, boot="another", host="far")
    end = threading.Event()

    def touch():
        while not end.wait(0.3):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    with pytest.raises(ValueError, match=r"run is in use by .* on far, process"):
        DirectoryLock(path, "run").acquire()
    end.set()
    thread.join()
    with DirectoryLock(path, "run") as lock:
        lock.check()
    assert "waiting for a sign of life, 1 s at most" in caplog.text
    assert "took over the lock of" in caplog.text


def test_a_damaged_lock_is_followed_after_silence(tmp_path, fast, monkeypatch):
    monkeypatch.setattr(directory_lock, "SILENCE_SECONDS", 0.1)
    values = dataclasses.asdict(Owner.current())
    damaged = [json.dumps(values | change).encode() for change in ({"pid": "7"}, {"host": "\x1b[2J"}, {"more": 1})]
    for number, content in enumerate([*damaged, b"", b"{}", b"[]", b"null", b"\xff", b"[" * 10**5]):
        path = tmp_path / str(number) / "run.lock"
        path.parent.mkdir()
        path.write_bytes(content)
        assert Owner.from_json(content) is None
        with DirectoryLock(path, "run"):
            pass
        assert not os.listdir(path.parent)


def test_who_releases_while_another_waits_is_followed(path, fast, monkeypatch, caplog):
    monkeypatch.setattr(directory_lock, "SILENCE_SECONDS", 600.0)
    leave(path, boot="another")
    timer = threading.Timer(0.3, path.unlink)
    timer.start()
    with DirectoryLock(path, "run") as lock:
        lock.check()
    timer.join()


def test_a_lock_that_was_lost_is_noticed_and_stays_with_its_new_owner(path, fast):
    with DirectoryLock(path, "run") as lock:
        before = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == before:
            time.sleep(0.02)
        lock.check()
        new = leave(path, host="other")
        while not lock._lost:
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match=r"has lost the lock of run, .* taken over by .* on other, "):
            lock.check()
    assert Owner.from_json(path.read_bytes()) == new


def test_a_process_that_slept_looks_at_its_lock_before_it_writes(path, monkeypatch):
    with DirectoryLock(path, "run") as lock:
        path.unlink()
        lock.check()  # the next heartbeat would tell
        now = directory_lock._now()
        monkeypatch.setattr(directory_lock, "_now", lambda: now + 3600)
        with pytest.raises(RuntimeError, match=r"run\.lock was removed"):
            lock.check()


def test_what_killed_processes_left_is_removed(path):
    path.parent.mkdir()
    for name in ("run.lock.taking-0", "run.lock.taking-" + "a" * 32, "run.locked"):
        (path.parent / name).touch()
    with DirectoryLock(path, "run"):
        assert sorted(os.listdir(path.parent)) == ["run.lock", "run.locked"]


def take_at_once(path, takers):
    """Return the locks that as many threads got that try at one time, and keep."""
    barrier = threading.Barrier(takers)
    locks = [DirectoryLock(path, "run") for _ in range(takers)]

    def take(lock):
        barrier.wait()
        try:
            lock.acquire()
        except ValueError:
            return None
        return lock

    with ThreadPoolExecutor(takers) as pool:
        return [lock for lock in pool.map(take, locks) if lock]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_many_that_follow_a_dead_owner_one_holds(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    monkeypatch.setattr(directory_lock, "POLL_SECONDS", 0.01)
    rng = random.Random(0)
    for number in range(15):
        path = tmp_path / f"{number}" / "run.lock"
        leave(path, pid=2**22 + 1)
        if rng.random() < 0.5:  # a taker died too
            claim = directory_lock.hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            leave(path.with_name(f"run.lock.taking-{claim}"), pid=2**22 + 1)
        holders = take_at_once(path, 6)
        assert len(holders) == 1
        holders[0].check()
        assert holders[0]._is_own(path)
        holders[0].release()
        assert not os.listdir(path.parent)


def test_of_many_that_come_first_one_holds(tmp_path):
    for number in range(15):
        (lock,) = take_at_once(tmp_path / str(number) / "run.lock", 6)
        lock.release()


def test_a_disk_that_refuses_the_lock_is_named(path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as raised:
        DirectoryLock(path, "run").acquire()
    assert raised.value.filename == str(path)
    assert not os.listdir(path.parent)


CONTEND = """
import os, random, sys, time
from pathlib import Path
from videodit_data.storage.directory_lock import DirectoryLock
from videodit_data.storage.lock_owner import Owner
folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
held = folder / "held"
while True:
    try:
        with DirectoryLock(folder / "run.lock", "run"):
            if held.exists() and Owner.from_json(held.read_bytes()).runs(held):
                (folder / "two at once").touch()
            held.write_bytes(Owner.current().to_json())
            time.sleep(rng.random() / 50)
            with (folder / "count").open("a") as file:
                file.write("x")
            held.write_bytes(b"")
            held.unlink()
    except ValueError:
        time.sleep(rng.random() / 100)
"""


@pytest.mark.slow
def test_processes_that_are_killed_at_random_never_hold_a_lock_together(tmp_path):
    rng, kills = random.Random(0), 60
    count = tmp_path / "count"

    def start(seed):
        return subprocess.Popen([sys.executable, "-c", CONTEND, tmp_path, str(seed)], stderr=subprocess.DEVNULL)

    processes = [start(seed) for seed in range(4)]
    try:
        for kill in range(kills):
            before, goal = count.stat().st_size if count.exists() else 0, rng.randrange(1, 20)
            while (count.stat().st_size if count.exists() else 0) < before + goal:
                assert all(process.poll() is None for process in processes)
                time.sleep(0.001)
            time.sleep(rng.random() / 20)
            victim = rng.randrange(len(processes))
            processes[victim].kill()
            processes[victim].wait()
            processes[victim] = start(kill + 10)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not (tmp_path / "two at once").exists()
    with DirectoryLock(tmp_path / "run.lock", "run"):
        assert not list(tmp_path.glob("run.lock.*"))
