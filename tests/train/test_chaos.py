"""Trainings of every kind that are killed at random moments, with full disks, damaged files and second runs thrown in.

Each chain of attempts has to end with the checkpoint and the metrics of a run that nothing happened to. Attempts are
forked from a server that has imported what they need: starting Python would take most of the time.
"""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.train.test_full_disk import fill, make_room
from videodit.checkpoint.metrics_file import read_metrics

TINY = Path(__file__).parents[1] / "cli" / "tiny.py"
STEPS, KILLS, WATCHDOG = 40, 50, 120  # steps of a run, kills of each kind, seconds of an attempt
DATA = {"vae": "train", "clips": "train", "latents": "train-latents", "packed": "train-latents"}
NOISE = ("per_s", "mfu")  # of speed, in the names of metrics


def run_command(arguments: list[str], log: str) -> None:
    """Run a command of `videodit` in this process, which writes what it prints to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.setsid()
    os.environ["XLA_FLAGS"] = ""
    sys.argv = ["videodit", *arguments]
    from videodit.cli import main

    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@dataclasses.dataclass
class Attempt:
    """A command in a process of its own."""

    process: multiprocessing.Process
    log: Path

    def ended(self) -> bool:
        return not self.process.is_alive()

    def wait(self) -> int:
        """Wait for its end; kill it and fail when that takes too long."""
        self.process.join(WATCHDOG)
        if self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f"hangs: {self.log.read_text()[-2000:]}")
        return self.process.exitcode


class Chaos:
    """Trains one kind of run in a directory, and interferes.

    Args:
        root: the data sets, the tokenizer and the autoencoder.
        disk: a small file system that can be filled; None where there is none.
    """

    def __init__(self, kind: str, root: Path, folder: Path, disk: Path | None, seed: int):
        self.kind, self.root, self.folder, self.disk = kind, root, folder, disk
        self.rng, self.counts = random.Random(seed), Counter()
        self._context, self._number = multiprocessing.get_context("forkserver"), 0
        self._context.set_forkserver_preload(["videodit.train.run", "videodit.cli.main"])

    def start(self, workdir: Path) -> Attempt:
        variant = {"vae": "vae", "packed": "packed"}.get(self.kind, "dit")
        options = {"data.path": self.root / DATA[self.kind], "steps": STEPS, "save_every": 3, "keep": 3}
        options |= {"eval_every": 0, "sample_every": 0, "log_every": 1}
        if variant != "vae":
            options |= {"tokenizer": self.root / "tokenizer.model", "vae": self.root / "vae"}
        self._number += 1
        log = self.folder / f"{self._number}.log"
        log.touch()  # an attempt may be killed before it writes
        arguments = ["train", "--config", f"{TINY}:{variant}", "--workdir", str(workdir)]
        arguments += [f"--config.{key}={value}" for key, value in options.items()]
        process = self._context.Process(target=run_command, args=(arguments, str(log)))
        process.start()
        return Attempt(process, log)

    def run_chain(self, workdir: Path) -> None:
        """Start the run again and again, and interfere with it, until it has ended by itself."""
        while True:
            attempt = self.start(workdir)
            goal = len(_lines(workdir)) + self.rng.randrange(0, 10)
            while not attempt.ended() and len(_lines(workdir)) < goal:
                time.sleep(0.01)
            time.sleep(self.rng.random() * 0.1)
            event = self.rng.choices(["SIGKILL", "SIGTERM", "SIGINT", "second", "full"], [60, 8, 8, 10, 14])[0]
            is_command = attempt.log.stat().st_size  # and no longer what forks it, which knows no signals
            if (event == "full" and self.disk is None) or (event in ("SIGTERM", "SIGINT") and not is_command):
                event = "SIGKILL"
            if attempt.ended():
                event = "none"
            getattr(self, f"_{event}")(attempt, workdir)
            if attempt.process.exitcode == 0 and len(_lines(workdir)) >= STEPS:
                return
            if self.rng.random() < 0.2:
                self._damage(workdir)

    def _none(self, attempt: Attempt, workdir: Path) -> None:
        assert attempt.wait() == 0, attempt.log.read_text()

    def _SIGKILL(self, attempt: Attempt, workdir: Path) -> None:
        with suppress(ProcessLookupError):
            os.kill(attempt.process.pid, signal.SIGKILL)
        if attempt.wait() == -signal.SIGKILL:
            self.counts["kills"] += 1
            if list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
                self.counts["kills inside a save"] += 1

    def _SIGTERM(self, attempt: Attempt, workdir: Path, number: int = signal.SIGTERM) -> None:
        with suppress(ProcessLookupError):
            os.kill(attempt.process.pid, number)
        status = attempt.wait()
        assert status in (0, 128 + number), (status, attempt.log.read_text())
        assert "Traceback" not in attempt.log.read_text()
        self.counts[signal.Signals(number).name] += 1

    def _SIGINT(self, attempt: Attempt, workdir: Path) -> None:
        self._SIGTERM(attempt, workdir, signal.SIGINT)

    def _second(self, attempt: Attempt, workdir: Path) -> None:
        """Start a second run in the workdir of one that writes there, then kill the first."""
        if _lines(workdir) and (workdir / "run.lock").exists():
            second = self.start(workdir)
            status, text = second.wait(), second.log.read_text()
            if status == 2:
                assert "is in use by" in " ".join(text.split()), text
                assert "Traceback" not in text
                self.counts["second runs refused"] += 1
            else:  # the first one ended meanwhile
                assert status == 0 and attempt.ended(), text
        self._SIGKILL(attempt, workdir)

    def _full(self, attempt: Attempt, workdir: Path) -> None:
        fill(self.disk, self.rng.choice([0, 4096, 50_000]))
        status, text = attempt.wait(), attempt.log.read_text()
        make_room(self.disk)
        if status:
            assert status == 2 and "the disk is full" in " ".join(text.split()), (status, text)
            assert "Traceback" not in text
            self.counts["full disks"] += 1

    def _damage(self, workdir: Path) -> None:
        """Damage the newest of several checkpoints, or cut the last line of the metrics.

        That is the line of a step after the newest checkpoint: those before it are on the disk when it is saved.
        """
        lines = workdir / "metrics.jsonl"
        steps = sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())
        if len(_lines(workdir)) > max(steps, default=0) and self.rng.random() < 0.7:
            os.truncate(lines, lines.stat().st_size - self.rng.randrange(2, 10))
            self.counts["cut metrics"] += 1
            return
        if len(steps) < 2:
            return
        newest = workdir / "checkpoints" / str(steps[-1])
        files = [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size > 100]
        path = self.rng.choice(files)
        match self.rng.choice(["cut", "zeroed", "flipped", "missing"]):
            case "cut":
                os.truncate(path, path.stat().st_size // 2)
            case "zeroed":
                path.write_bytes(bytes(path.stat().st_size))
            case "flipped":
                content = bytearray(path.read_bytes())
                content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
                path.write_bytes(content)
            case "missing":
                shutil.rmtree(newest / self.rng.choice(["state", "loader"]))
        self.counts["damaged checkpoints"] += 1


def _lines(workdir: Path) -> list[bytes]:
    with suppress(OSError):
        return (workdir / "metrics.jsonl").read_bytes().splitlines()
    return []


def outcome_of(workdir: Path) -> tuple[object, ...]:
    """Return what must be the same: the checksums of all arrays, the loader's position, and the metrics."""
    newest = workdir / "checkpoints" / str(STEPS)
    checksums = json.loads((newest / "checksums" / "metadata").read_text())
    loader = json.loads((newest / "loader" / "metadata").read_text())
    metrics = [
        {k: v for k, v in line.items() if not any(word in k for word in NOISE)} for line in read_metrics(workdir)
    ]
    return checksums, loader, metrics


def assert_nothing_left(workdir: Path) -> None:
    names = [str(path) for path in workdir.rglob("*")]
    assert not [name for name in names if name.endswith((".part", ".tmp", ".lock")) or "orbax-checkpoint-tmp" in name]
    processes = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert str(workdir) not in processes, processes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make data sets, a tokenizer, an autoencoder and latents."""
    from videodit.cli import main

    root = tmp_path_factory.mktemp("chaos")
    size = ("--height", "32", "--width", "32", "--processes", "1")
    assert main(["data", "toyworld", "--out", str(root / "train"), "--clips", "12", *size]) == 0
    assert (
        main(["data", "tokenizer", str(root / "train"), "--out", str(root / "tokenizer.model"), "--vocabulary", "128"])
        == 0
    )
    paths = [f"--config.data.path={root / 'train'}", "--config.eval_every=0", "--config.sample_every=0"]
    assert main(["train", "--config", f"{TINY}:vae", "--workdir", str(root / "vae"), *paths]) == 0
    out = str(root / "train-latents")
    assert main(["data", "encode", str(root / "train"), "--vae", str(root / "vae"), "--out", out]) == 0
    return root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """Mount a small file system, which needs root; None where none can be mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=4000", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield path if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
def test_whatever_happens_to_a_run_it_ends_as_if_nothing_had(kind, root, disk, tmp_path):
    chaos = Chaos(kind, root, tmp_path, disk, seed=sorted(DATA).index(kind))
    assert chaos.start(tmp_path / "straight").wait() == 0
    expected = outcome_of(tmp_path / "straight")
    chains = 0
    while chaos.counts["kills"] < KILLS:
        workdir = (disk or tmp_path) / f"chain{chains}"
        chaos.run_chain(workdir)
        assert outcome_of(workdir) == expected
        assert_nothing_left(workdir)
        shutil.rmtree(workdir)
        chains += 1
    print(f"{kind}: {chains} chains, {dict(chaos.counts)}")
