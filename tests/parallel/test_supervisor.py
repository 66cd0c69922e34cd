"""A supervisor: output and status come through, a lost peer is a sentence, and both processes end together."""

import os
import signal

import pytest

from tests.processes import SECONDS, find_descendants, start_program, wait_until_gone
from videodit.parallel.supervisor import PEER_LOST

PROGRAM = """
import os, signal, sys, time
from videodit.parallel import supervisor
supervisor.HOLD_SECONDS = float(sys.argv[1])
supervisor.supervise("process 1 of 2")
"""
STACK = "*** Check failure stack trace: ***\n    @     0x7f4723e20634  absl::lts_20260107::log_internal::LogMessage\n"
SERVICE = (
    "W1130 21:14:11.030596   15119 preemption_sync_manager.cc:147] Failed to retrieve preemption notice\n"
    "F1130 21:14:11.030675   15119 client.h:80] Terminating process because the JAX distributed service detected fatal "
    f"errors. This most likely indicates that another task died; see the other task logs\n{STACK}"
)
GLOO = "terminate called after throwing an instance of 'gloo::EnforceNotMet'\n  what():  [enforce fail at pair.cc] \n"
MEMORY = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"


def run(body: str, hold: float = 3600) -> tuple[int, str, str]:
    process = start_program(PROGRAM + body, str(hold))
    stdout, stderr = process.communicate(timeout=SECONDS)
    return process.returncode, stdout, stderr


def test_input_output_and_status_come_through():
    body = "print(input()); print('a', file=sys.stderr); print('b', end='', file=sys.stderr); sys.exit(5)"
    process = start_program(PROGRAM + body, "0")
    assert process.communicate("line\n", timeout=SECONDS) == ("line\n", "a\nb") and process.returncode == 5


@pytest.mark.parametrize("dump", [SERVICE, GLOO, GLOO + STACK])
def test_an_abort_for_a_lost_peer_is_one_sentence(dump):
    status, _, stderr = run(f"os.write(2, b'step 3\\n' + {dump.encode()!r}); os.abort()")
    progress, sentence = stderr.splitlines()
    assert status == PEER_LOST and progress == "step 3"
    assert sentence.startswith("videodit: process 1 of 2 stops, since another one is gone or cannot be reached (")
    assert sentence.endswith("start all of them again: they resume from the last checkpoint")


def test_a_process_that_says_so_itself_is_not_repeated():
    says = "os.write(2, b'videodit: process 1 of 2 stops, since ...\\n')"
    expected = PEER_LOST, "", "videodit: process 1 of 2 stops, since ...\n"
    for order in (f"os.write(2, {SERVICE.encode()!r}); {says}", f"{says}; os.write(2, {SERVICE.encode()!r})"):
        assert run(f"{order}; os._exit({PEER_LOST})") == expected


@pytest.mark.parametrize(("dump", "number"), [(MEMORY, signal.SIGABRT), ("", signal.SIGKILL)])
def test_other_ends_are_shown_whole_and_named(dump, number):
    status, _, stderr = run(f"os.write(2, {dump.encode()!r}); os.kill(os.getpid(), {int(number)})")
    assert (status, stderr) == (128 + number, f"{dump}videodit: process 1 of 2 was ended by {number.name}\n")


def test_lines_of_native_code_are_shown_when_the_process_goes_on():
    process = start_program(
        PROGRAM + f"os.write(2, {SERVICE.encode()!r}); print('after', file=sys.stderr); input()", "0.1"
    )
    read = "".join(process.stderr.readline() for _ in range(len(SERVICE.splitlines()) + 1))
    assert read == SERVICE + "after\n"
    process.communicate("\n", timeout=SECONDS)


def test_signals_are_passed_on():
    process = start_program(
        PROGRAM + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True); time.sleep(600)",
        "0",
    )
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_both_processes_is_one_and_another_one_a_second(number):
    """Launchers signal every process of a run."""
    body = (
        "from videodit.parallel import first_signal\n"
        "from videodit.train import interruption\n"
        "first_signal.REPEAT_SECONDS = 3600\n"
        "with interruption.Interruption() as stop:\n"
        "    stop.listen()\n"
        "    print('ready', flush=True)\n"
        "    while not stop.at(0): time.sleep(0.01)\n"
        "    for _ in range(50): time.sleep(0.01)\n"
        "    print('saved by', stop.at(0), flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = start_program(PROGRAM + body, "0")
    process.stdout.readline()
    (child,) = find_descendants(process.pid)
    for pid in (child, process.pid, child):
        os.kill(pid, number)
    assert process.stdout.readline() == f"saved by {number.name}\n"
    process.send_signal(signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode != 0


def test_the_process_dies_with_its_supervisor():
    process = start_program(PROGRAM + "print('ready', flush=True); time.sleep(600)", "0")
    process.stdout.readline()
    children = find_descendants(process.pid)
    assert len(children) == 1 and os.getpgid(children[0]) == children[0]
    process.kill()
    process.communicate(timeout=SECONDS)
    wait_until_gone(children)
