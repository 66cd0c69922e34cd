"""A training process, killed and resumed."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
from rich.console import Console

from tests.train.toy import ToyLoader, ToyTask, checkpoint_steps, digest, toy_run
from videodit.checkpoint.metrics_file import read_metrics
from videodit.train.loop import train

ROOT = Path(__file__).parents[2]


def start(workdir, steps, delay=0.05):
    command = [sys.executable, "-W", "error", "-m", "tests.train.toy", str(workdir), str(steps), str(delay)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE, text=True)


def wait_for(process, condition):
    """Poll until the condition holds; fail with the process's standard error if it ends before."""
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def steps_logged(workdir):
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def finish(workdir, steps):
    console = Console(file=io.StringIO())
    return train(
        toy_run(steps=steps), ToyTask(), ToyLoader(), None, workdir, devices=jax.devices()[:1], console=console
    )


def test_killed_then_terminated_then_finished_is_the_straight_run_bit_for_bit(tmp_path):
    killed = start(tmp_path / "a", 10_000)
    wait_for(killed, lambda: steps_logged(tmp_path / "a") >= 7)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint_steps(tmp_path / "a")
    reached = steps_logged(tmp_path / "a")

    terminated = start(tmp_path / "a", 10_000)
    wait_for(terminated, lambda: steps_logged(tmp_path / "a") >= reached + 3)
    terminated.send_signal(signal.SIGTERM)
    _, text = terminated.communicate()
    assert terminated.returncode == 0, text
    stopped = max(checkpoint_steps(tmp_path / "a"))
    text = " ".join(text.split())
    assert f"stopped by SIGTERM; saved at step {stopped}" in text
    assert re.search(rf"took over the lock of .*, process {killed.pid}, since .*, which has ended", text)
    assert not list((tmp_path / "a").glob("run.lock*"))

    resumed, straight = finish(tmp_path / "a", stopped + 3), finish(tmp_path / "b", stopped + 3)
    losses = [[(e["step"], e["loss"], e["grad_norm"]) for e in read_metrics(tmp_path / name)] for name in "ab"]
    assert losses[0] == losses[1]
    assert [step for step, *_ in losses[0]] == list(range(1, stopped + 4))
    assert digest(resumed.state) == digest(straight.state)
