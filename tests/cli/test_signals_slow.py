"""Every command, interrupted at many moments: one line, a status, no process and nothing half-written left behind."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from videodit_data import video

from tests.cli import tiny
from tests.data.captioning.stub import serving
from tests.processes import ROOT, SECONDS, find_descendants, start_program, wait_until_gone
from videodit.cli import main
from videodit.cli.signals import SENTENCES
from videodit.train.interruption import Interruption

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

TINY = tiny.__file__
GOLDENS = ROOT.parent / "shared" / "goldens"
LONGEST = 12.0  # seconds to the signal, on an idle machine about as long as the longest command
ENDLESS = ("--config.steps=1000000", "--config.save_every=50", "--config.eval_every=40", "--config.sample_every=40")


def run(*args: object) -> None:
    assert main([str(arg) for arg in args]) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the commands read: videos, data sets, a tokenizer, trained models; return their directory."""
    root = tmp_path_factory.mktemp("signals")
    size = ("--height", 32, "--width", 32, "--processes", 1)
    run("data", "toyworld", "--out", root / "train", "--clips", 12, *size)
    run("data", "toyworld", "--out", root / "heldout", "--clips", 8, "--seed", 1, *size)
    run("data", "tokenizer", root / "train", "--out", root / "tokenizer.model", "--vocabulary", 128)
    run(*train(root, "vae", root / "vae"))
    for name in ("train", "heldout"):
        run("data", "encode", root / name, "--vae", root / "vae", "--out", root / f"{name}-latents")
    run(*train(root, "dit", root / "dit"))
    (root / "videos").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (96, 240, 320, 3), dtype=np.uint8)
    for index in range(6):
        video.encode(root / "videos" / f"{index}.mp4", np.roll(frames, index, 0), 24)
        (root / "videos" / f"{index}.txt").write_text("noise")
    return root


def train(root: Path, variant: str, workdir: Path, *more: str) -> list[object]:
    suffix = "" if variant == "vae" else "-latents"
    paths = [f"--config.data.path={root}/train{suffix}", f"--config.data.eval_path={root}/heldout{suffix}"]
    if variant == "dit":
        paths += [f"--config.tokenizer={root}/tokenizer.model", f"--config.vae={root}/vae"]
    return ["train", "--config", f"{TINY}:{variant}", "--workdir", workdir, *paths, *more]


def build_commands(root: Path, out: Path, url: str) -> dict[str, list[object]]:
    """Return commands that write below `out`, by name."""
    footage = ["--input", root / "videos", "--config", ROOT / "configs" / "data" / "default.py"]
    toys = ["--clips", 5000, "--height", 128, "--width", 128]
    plan = ["--config", f"{TINY}:dit", "--vae", f"{TINY}:vae", "--topology", "cpu:8", "--html", out / "plan.html"]
    weights = GOLDENS / "wan_t2v" / "weights.safetensors"
    encode = ["--vae", root / "vae", "--crops", 16]
    ask = ["--endpoint", url, "--model", "m"]
    sample = ["--checkpoint", root / "dit", "--prompt", "a red circle", "--steps", 2000]
    return {
        "train vae": train(root, "vae", out / "vae", *ENDLESS),
        "train dit": train(root, "dit", out / "dit", *ENDLESS),
        "sample": ["sample", *sample, "--out", out / "red.mp4"],
        "eval": ["eval", "--checkpoint", root / "dit", "--data", root / "heldout", "--out", out / "eval", "--clips", 8],
        "plan": ["plan", *plan],
        "quickstart": ["quickstart", "--workdir", out / "quickstart", "--clips", 64, "--heldout-clips", 8],
        "data toyworld": ["data", "toyworld", "--out", out / "toyworld", *toys],
        "data ingest": ["data", "ingest", root / "videos", "--out", out / "ingest"],
        "data build": ["data", "build", *footage, "--out", out / "build"],
        "data inspect": ["data", "inspect", root / "train", "--sheet", out / "sheet.png"],
        "data encode": ["data", "encode", root / "train", *encode, "--out", out / "encode"],
        "data caption": ["data", "caption", root / "train", *ask, "--out", out / "caption"],
        "data tokenizer": ["data", "tokenizer", root / "train", "--out", out / "t.model", "--vocabulary", 128],
        "import": ["import", "--kind", "wan2.1-t2v", "--from", weights, "--to", out / "import"],
        "export": ["export", "--checkpoint", out / "import", "--to", out / "export"],
    }


FINISHED = {"data toyworld", "data ingest", "data build", "data encode", "data caption", "import", "export"}
"""Commands whose output is there as a whole, or not at all."""


def start(command: list[object]) -> subprocess.Popen[str]:
    """Start a command; returns when it handles signals, or has ended."""
    program = "import sys; from videodit.cli import main; sys.exit(main())"
    process = start_program(program, *map(str, command))
    while process.poll() is None:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        if int(status["SigCgt"], 16) & 1:  # SIGHUP
            break
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("name", build_commands(Path(), Path(), ""))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_with_one_line_at_any_moment(root, tmp_path, name, number):
    draw = random.Random(f"{name} {number}")
    delays = [0.0, *(draw.uniform(0, LONGEST) for _ in range(3))]
    with serving() as stub:
        stub.react = lambda count: lambda handler: stub.over.wait(600)
        for index, delay in enumerate(delays):
            out = tmp_path / str(index)
            out.mkdir()
            command = build_commands(root, out, stub.url)[name]
            if name == "export":
                run(*build_commands(root, out, stub.url)["import"])
            process = start(command)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            started = find_descendants(process.pid)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=SECONDS)
            lines = [line for line in stderr.splitlines() if line]
            message = f"{delay:.2f} s: {process.returncode}\n{stderr}"
            assert "Traceback" not in stderr and "Exception" not in stderr and "leaked" not in stderr, message
            if process.returncode == 0:  # it had come to its end, or a training saved
                stopped = f"stopped by {number.name}; saved at step"
                assert not name.startswith("train") or (stopped in stderr and Interruption.notice in lines), message
            elif process.returncode != -number:  # which Python leaves to the system at its own end
                assert process.returncode == 128 + number and lines[-1] == SENTENCES[number], message
                assert lines.count(SENTENCES[number]) == 1, message
                if name in FINISHED:
                    assert not Path(str(command[command.index("--to" if "--to" in command else "--out") + 1])).exists()
            wait_until_gone(started)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_saves_on_a_first_signal_and_ends_on_a_second(root, tmp_path, number):
    for second in (False, True):
        workdir = tmp_path / f"second {second}"
        process = start(train(root, "vae", workdir, *ENDLESS))
        metrics, until = workdir / "metrics.jsonl", time.monotonic() + 300
        while not metrics.exists() or not metrics.stat().st_size:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        if second:
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.05)
        stderr = process.communicate(timeout=SECONDS)[1]
        assert Interruption.notice in stderr.splitlines() and "Traceback" not in stderr, stderr
        if second and process.returncode:  # it may have saved before
            assert process.returncode == 128 + signal.SIGINT, stderr
            assert stderr.splitlines()[-1] == SENTENCES[signal.SIGINT]
        else:
            assert process.returncode == 0 and f"stopped by {number.name}; saved at step" in stderr, stderr
