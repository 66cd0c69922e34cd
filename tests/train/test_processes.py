"""Several processes on one machine, which see each other over loopback: one run, as exact as that of one process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoint.test_checkpoints import damage
from tests.processes import find_descendants
from tests.train.toy import checkpoint_steps
from videodit.checkpoint.checkpoints import DAMAGED
from videodit.checkpoint.metrics_file import read_metrics
from videodit.cli import main
from videodit.parallel.distributed import HEARTBEAT_SECONDS
from videodit.parallel.supervisor import PEER_LOST

ROOT = Path(__file__).parents[2]
DEVICES, CLIPS, BATCH = 8, 16, 8
PROGRAM = """
import json, sys
from videodit.parallel.supervisor import supervise
arguments = json.loads(sys.argv[1])
if arguments["processes"] > 1:
    supervise(f"process {arguments['index']} of {arguments['processes']}")
from tests.train.process import main
main(**arguments)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "clips"
    size = ["--height", "32", "--width", "32", "--processes", "1"]
    assert main(["data", "toyworld", "--out", str(path), "--clips", str(CLIPS), *size]) == 0
    return path


class Several:
    """Processes of one run, with eight devices between them."""

    def __init__(self, processes: int, data: Path, workdir: Path, steps: int, mesh: dict, delay: float = 0.0):
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
        flags += f" --xla_force_host_platform_device_count={DEVICES // processes}"
        common = {"data": str(data), "workdir": str(workdir), "steps": steps, "mesh": mesh, "address": address}
        self.all = []
        self.outputs = [Path(tempfile.mkdtemp()) / "output" for _ in range(processes)]
        for index in range(processes):
            arguments = json.dumps(
                common | {"processes": processes, "index": index, "delay": delay, "output": str(self.outputs[index])}
            )
            self.all.append(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, arguments],
                    cwd=ROOT,
                    env={**os.environ, "XLA_FLAGS": flags},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def end(self, seconds: float = 180) -> list[tuple[int, str, str]]:
        """Return the exit status of each, its output file, and its standard error."""
        end, found = time.monotonic() + seconds, []
        try:
            for process, output in zip(self.all, self.outputs, strict=True):
                _, err = process.communicate(timeout=max(1, end - time.monotonic()))
                found.append((process.returncode, output.read_text() if output.exists() else "", err))
        finally:
            for process in self.all:
                process.kill()
        return found


def clips(found) -> dict[int, list[list[str]]]:
    """The clips that each process took, by batch."""
    batches: dict[int, list[list[str]]] = {}
    for _, out, _ in found:
        for line in re.findall(r"^clips (.*)$", out, re.MULTILINE):
            number, names = json.loads(line)
            batches.setdefault(number, []).append(names)
    return batches


def train(*args, **options) -> list[tuple[int, str, str]]:
    found = Several(*args, **options).end()
    for status, _, err in found:
        assert status == 0, err[-3000:]
    return found


def losses(workdir: Path) -> list[tuple[int, float, float]]:
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in read_metrics(workdir)]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Four steps, which are two epochs, in one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    return clips(train(1, data, workdir, 4, {"data": -1})), losses(workdir)


@pytest.mark.parametrize(
    ("processes", "mesh"),
    [
        (2, {"data": 2, "fsdp": 2, "context": 2}),
        pytest.param(4, {"data": 2, "fsdp": 1, "context": 4}, marks=pytest.mark.slow),
    ],
)
def test_together_they_are_the_run_of_one(processes, mesh, data, alone, tmp_path):
    """And what they saved, half as many go on with on another mesh, with the same clips and losses."""
    found = train(processes, data, tmp_path, 2, mesh)
    taken, (expected, curve) = clips(found), alone
    for number in range(2):
        together = {clip for part in taken[number] for clip in part}
        assert together == set(expected[number][0])
    epoch = [clip for number in range(CLIPS // BATCH) for part in taken[number] for clip in part]
    # Processes whose devices share clips read the same ones; all others differ.
    copies = len(epoch) // CLIPS
    assert sorted(epoch) == sorted([*expected[0][0], *expected[1][0]] * copies)

    resumed = clips(train(processes // 2, data, tmp_path, 4, {"data": 4, "fsdp": 2}))
    assert 0 not in resumed and 1 not in resumed
    for number in (2, 3):
        assert {clip for part in resumed[number] for clip in part} == set(expected[number][0])
    np.testing.assert_allclose(losses(tmp_path), curve, rtol=1e-5)


def wait_for_step(workdir: Path, step: int, several: Several) -> None:
    path, end = workdir / "metrics.jsonl", time.monotonic() + 120
    while not path.exists() or len(path.read_text().splitlines()) < step:
        assert all(process.poll() is None for process in several.all) and time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_when_one_is_killed_the_others_stop(victim, data, tmp_path):
    several = Several(2, data, tmp_path, 10_000, {"data": -1}, delay=0.05)
    wait_for_step(tmp_path, 3, several)
    assert several.all[1 - victim].poll() is None
    several.all[victim].kill()
    killed = time.monotonic()
    status, _, err = several.end()[1 - victim]
    assert time.monotonic() - killed < 60 and HEARTBEAT_SECONDS < 60
    # Who notices first ends it: our guard, JAX's coordination service, or, on CPUs, gloo's thread when a message breaks
    # off. The last two abort, and a supervisor reports it.
    assert status == PEER_LOST, err
    *_, last = err.splitlines()
    assert f"process {1 - victim} of 2 stops, since another one is gone or cannot be reached" in last, err
    assert "they resume from the last checkpoint" in last
    assert not re.search(r"^(    @ |\*\*\*|terminate called|Traceback)", err, re.MULTILINE), err


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_one_stops_all_at_one_step(number, data, tmp_path):
    """Also when it comes twice, to the process and to its supervisor, which passes it on."""
    several = Several(2, data, tmp_path, 10_000, {"data": -1}, delay=0.05)
    wait_for_step(tmp_path, 3, several)
    supervisor = several.all[1].pid
    (process,) = find_descendants(supervisor)[:1]
    for pid in (process, supervisor):
        os.kill(pid, number)
    found = several.end()
    assert [status for status, _, _ in found] == [0, 0], found
    ended = {re.search(r"^ended (.*)$", out, re.MULTILINE)[1] for _, out, _ in found}
    assert len(ended) == 1, "the same step, and the same state"
    step = json.loads(ended.pop())[0]
    assert max(checkpoint_steps(tmp_path)) == step < 10_000
    assert f"stopped by SIGTERM; saved at step {step}" in " ".join(found[0][2].split())


def test_a_process_that_finds_no_other_says_where_it_looked(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program = f"from videodit.parallel.distributed import join; join('127.0.0.1:{port}', 2, 1, seconds=1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"process 1 of 2 could not join the run at 127.0.0.1:{port}" in done.stderr.splitlines()[-1]
    assert "check that process 0 is up on that host, that its port is open" in done.stderr


def test_a_first_process_that_is_left_alone_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program = f"from videodit.parallel.distributed import join; join('127.0.0.1:{port}', 2, 0, seconds=2)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert f"process 0 of 2 waits for the others at 127.0.0.1:{port}, 2 s at most; if it ends, check" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flipped", "one array cut", "no loader"])
def test_all_of_them_step_over_a_damaged_checkpoint(how, data, tmp_path):
    mesh = {"data": 1, "fsdp": 4, "context": 2}
    ended = [out.splitlines()[-1] for _, out, _ in train(2, data, tmp_path, 4, mesh)]
    newest = tmp_path / "checkpoints" / "4"
    if how == "one array cut":  # which one of the two processes reads
        (newest / "state" / "ocdbt.process_1").rename(newest / "state" / "gone")
    else:
        damage(newest, how)
    found = train(2, data, tmp_path, 4, mesh)
    assert [out.splitlines()[-1] for _, out, _ in found] == ended
    for _, _, err in found:
        assert "the checkpoint of step 4 is damaged" in " ".join(err.split()) and "Traceback" not in err
    assert (tmp_path / DAMAGED / "4").is_dir()
    assert checkpoint_steps(tmp_path) == [2, 4]
