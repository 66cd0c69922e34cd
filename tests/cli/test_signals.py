"""Signals that end a command: one line and a status of 128 + N, whatever it is doing, and nothing left behind."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from videodit_data import video

from tests.processes import SECONDS, find_descendants, start_program, wait_until_gone
from videodit.cli.signals import SENTENCES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROGRAM = """
import concurrent.futures, gc, hashlib, sys, time
from videodit.cli import main, signals
from videodit.cli.data import inspect
from videodit.parallel import first_signal

def hang():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # native code without the interpreter's lock, as a compiler

def ready():
    print("ready", flush=True)

def command(args, console):
    {body}

inspect.run = command
sys.argv = ["videodit", "data", "inspect", "set"]
sys.exit(main())
"""


def start(body: str) -> subprocess.Popen[str]:
    """Start a command that does what the body says, up to where it is ready."""
    process = start_program(PROGRAM.format(body=body.replace("\n", "\n    ")))
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    """Return the status, standard output and the lines of standard error."""
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, stdout, stderr.splitlines()


@pytest.mark.parametrize("number", SENTENCES)
def test_each_signal_has_a_sentence_and_a_status(number):
    process = start("ready(); time.sleep(600)")
    process.send_signal(number)
    assert end(process) == (128 + number, "", [SENTENCES[number]])


@pytest.mark.parametrize(
    "body",
    {
        "native code": "ready(); hang()",
        "a thread": "concurrent.futures.ThreadPoolExecutor(1).submit(hang)\nready(); time.sleep(600)",
        "it is caught": "ready()\ntry:\n    time.sleep(600)\nexcept BaseException:\n    hang()",
        "an import": "from importlib import import_module as load\nready(); load('tests.cli.slow_import')",
        "it becomes another error": "ready()\ntry:\n    time.sleep(600)\nfinally:\n    raise RuntimeError('closed')",
    }.items(),
    ids=lambda item: item[0],
)
def test_ctrl_c_ends_a_command_whatever_it_does(body):
    process = start(body[1])
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "", [SENTENCES[signal.SIGINT]])


def test_an_interrupt_that_a_callback_drops_is_raised_again():
    """JAX has a callback of the garbage collector, out of which no exception comes."""
    process = start(
        "gc.callbacks.append(lambda *_: (gc.callbacks.clear(), ready(), time.sleep(600)))\n"
        "try:\n    gc.collect(); time.sleep(600)\nfinally:\n    print('in order')"
    )
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "in order\n", [SENTENCES[signal.SIGINT]])


def test_a_second_ctrl_c_does_not_wait():
    process = start("signals.GRACE_SECONDS, first_signal.REPEAT_SECONDS = 3600, 0.1; ready(); hang()")
    while process.poll() is None:  # those that come at once are one
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert end(process) == (130, "", [SENTENCES[signal.SIGINT]])


def test_a_handler_with_a_notice_keeps_the_first_signal():
    process = start(
        "class Save:\n    notice = 'stopping: saves first'\n    __call__ = lambda *_: None\n"
        "import signal; signal.signal(signal.SIGTERM, Save()); signal.signal(signal.SIGINT, Save())\n"
        "signals.GRACE_SECONDS = 0; ready(); hang()"
    )
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "stopping: saves first\n"
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "", [SENTENCES[signal.SIGINT]])


HANDLER = """
class Save:
    notice = "stopping: saves first"
    def __call__(self, number, frame):
        print("called", flush=True)
        if len(calls) == late:
            previous(number, frame)
        calls.append(number)
calls, late = [], {late}
import signal
previous = signal.signal(signal.SIGTERM, Save())
signals.GRACE_SECONDS, first_signal.REPEAT_SECONDS = 0, 3600
ready()
time.sleep(600)
"""


def test_a_repeat_of_the_first_signal_is_not_a_second_one():
    """Whether the handler is called at once or so late that it takes the repeat for a second signal."""
    process = start(HANDLER.format(late=2))
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "called\n"
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "", ["stopping: saves first", SENTENCES[signal.SIGINT]])


def test_what_was_ignored_stays_ignored():
    """As by the background jobs of a shell, and under nohup."""
    text = PROGRAM.format(body="ready(); time.sleep(0.3); print('whole'); return 0")
    process = start_program(
        f"import signal; [signal.signal(n, signal.SIG_IGN) for n in {[*map(int, SENTENCES)]}]\n{text}"
    )
    process.stdout.readline()
    for number in SENTENCES:
        process.send_signal(number)
    assert end(process) == (0, "whole\n", [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ingestion_ends_with_its_decoders(number, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        video.encode(tmp_path / "videos" / f"{name}.mp4", np.zeros((4, 16, 16, 3), np.uint8), 8)
        (tmp_path / "videos" / f"{name}.txt").write_text("nothing moves")
    out = tmp_path / "set"
    process = start_program(
        "import sys; from videodit_data import ingest; from videodit_data.video.isolate import Isolated\n"
        "ingest.Verifier = lambda: Isolated('tests.data.video.isolated:decode_for_ever')\n"
        "from videodit.cli import main; sys.exit(main())",
        *("data", "ingest", str(tmp_path / "videos"), "--out", str(out)),
    )
    until = time.monotonic() + SECONDS
    while len(list((tmp_path / "videos").glob("*.decoding"))) < 2:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    decoders = find_descendants(process.pid)
    assert len(decoders) == 2
    process.send_signal(number)
    status, _, stderr = end(process)
    if number == signal.SIGINT:
        assert status == 130 and [line for line in stderr if "━" not in line] == [SENTENCES[number]]
    wait_until_gone(decoders)
    assert not out.exists()
