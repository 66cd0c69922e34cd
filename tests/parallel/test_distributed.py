"""Errors of one process reach all of them: of work that the main process does for all, and of reading a checkpoint."""

import json
import socket

from tests.processes import SECONDS, start_program

PROGRAM = """
import json, sys
from videodit.parallel.distributed import is_main_process, join, on_main_process
join(sys.argv[1], 2, int(sys.argv[2]), seconds=60)

def work(error):
    assert is_main_process()
    if error:
        raise error

found = []
for error in (
    None, ValueError("no such run"), ValueError(), OSError(28, "No space left", "a/b"), KeyError("x"),
    ValueError("a\\udcff"), ValueError("x" * 5000),
):
    try:
        on_main_process(lambda: work(error))
        found.append(None)
    except Exception as raised:
        found.append([type(raised).__name__, ascii(str(raised))])
print(json.dumps(found))
"""


READ = """
import errno, json, sys
from pathlib import Path
import numpy as np
from videodit.checkpoint.newest_whole import Reading, find_newest_whole
from videodit.parallel.distributed import join
join(sys.argv[1], 2, int(sys.argv[2]), seconds=60)

def read(folder):
    if folder.name == "4" and sys.argv[2] == "1":
        raise OSError(errno.EIO, "Input/output error", str(folder))
    return Reading(folder.name, {}, None)

try:
    print(json.dumps(find_newest_whole(Path("run"), [2, 4], read).value))
except (ValueError, OSError) as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def run_two(program: str) -> list:
    """Return what two processes of a program print last."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    processes = [start_program(program, address, str(index)) for index in range(2)]
    try:
        outputs = [process.communicate(timeout=2 * SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [[line for line in stdout.splitlines() if not line.startswith("[Gloo]")] for stdout, _ in outputs]
    return [json.loads(each[-1]) for each in lines]


def test_a_read_error_of_one_process_ends_all_with_a_sentence():
    here, there = run_two(READ)
    assert here == ["ValueError", "another process could not read run/4"]
    assert there[0] == "DiskError" and "run/4" in there[1]


def test_an_error_of_the_main_process_reaches_all_of_them():
    main, other = run_two(PROGRAM)
    same = [None, ["ValueError", "'no such run'"], ["ValueError", "''"]]
    full = "[Errno 28] No space left: 'a/b'"
    assert main[:4] == [*same, ["OSError", ascii(full)]]
    assert other[:4] == main[:4]
    assert main[4] == ["KeyError", ascii("'x'")]
    assert other[4] == ["RuntimeError", ascii("the main process failed (KeyError: 'x')")]
    assert (main[5], other[5]) == (["ValueError", "'a\\udcff'"], ["ValueError", ascii("a\\udcff")])
    assert other[6] == ["ValueError", ascii("x" * 1023)]
