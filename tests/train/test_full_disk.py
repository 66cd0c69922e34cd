"""A training whose disk becomes full: it ends by itself with a sentence, and resumes bit for bit when there is room."""

import os
import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.train.test_kill import ROOT, finish, steps_logged, wait_for
from tests.train.toy import checkpoint_steps, digest
from videodit.checkpoint.metrics_file import read_metrics

# The toy, whose errors become a sentence and a status as those of a command do.
COMMAND = "import sys; from tests.train import toy; from videodit.cli import main; " + (
    "from videodit.cli import train; train.command = lambda args, console: toy.main(*sys.argv[1:]); "
    "sys.exit(main(['train', '--config', 'none', '--workdir', 'none']))"
)
ROUNDS, MEGABYTES = 10, 8


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a few megabytes, which needs root and a kernel that lets it."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,nr_inodes=2000", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path, left: int) -> None:
    """Fill the disk with one file until `left` bytes are free."""
    with (disk / "fill").open("wb", buffering=0) as file:
        while (free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize) > left:
            if not file.write(bytes(min(2**16, free - left))):
                break


def use_inodes(disk: Path, left: int) -> None:
    """Create files until `left` more can be created."""
    (disk / "many").mkdir()
    with suppress(OSError):  # the run takes some meanwhile
        for number in range(os.statvfs(disk).f_favail - left):
            (disk / "many" / str(number)).touch()


def make_room(disk: Path) -> None:
    (disk / "fill").unlink(missing_ok=True)
    for path in (disk / "many").glob("*"):
        path.unlink()
    if (disk / "many").is_dir():
        (disk / "many").rmdir()


@pytest.mark.slow
def test_a_full_disk_ends_a_run_at_once_with_a_sentence_and_with_room_it_resumes_bit_for_bit(small_disk, tmp_path):
    rng, workdir, logged = random.Random(0), small_disk / "run", 0
    for number in range(ROUNDS):
        command = [sys.executable, "-W", "error", "-c", COMMAND, str(workdir), "10000", "0.02"]
        goal = logged + rng.randrange(3, 9)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for(process, lambda goal=goal: steps_logged(workdir) >= goal)
                if number % 3 == 2:
                    use_inodes(small_disk, rng.randrange(4))
                else:
                    fill(small_disk, rng.choice([0, 4096, 100_000, 300_000]))
                _, text = process.communicate(timeout=60)
            finally:
                process.kill()
        *_, last = text.strip().splitlines()
        assert process.returncode == 2, text
        assert re.fullmatch(
            rf"videodit: {re.escape(str(workdir))}\S* could not be written, since the disk is full \(.* are free\); "
            r"(the last good checkpoint is that of step \d+|there is no checkpoint yet); make room and run .*",
            last,
        ), text
        assert "Traceback" not in text
        assert not list(workdir.glob("*.part"))
        make_room(small_disk)
        logged = len(read_metrics(workdir))
    stopped = max(checkpoint_steps(workdir))
    resumed, straight = finish(workdir, stopped + 3), finish(tmp_path / "straight", stopped + 3)
    losses = [[(e["step"], e["loss"]) for e in read_metrics(path)] for path in (workdir, tmp_path / "straight")]
    assert losses[0] == losses[1]
    assert digest(resumed.state) == digest(straight.state)
