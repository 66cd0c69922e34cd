"""Work of the main process for all: its errors reach every process."""

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


def test_an_error_of_the_main_process_reaches_all_of_them():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    processes = [start_program(PROGRAM, address, str(index)) for index in range(2)]
    try:
        outputs = [process.communicate(timeout=2 * SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    main, other = (json.loads(stdout.splitlines()[-1]) for stdout, _ in outputs)
    same = [None, ["ValueError", "'no such run'"], ["ValueError", "''"]]
    full = "[Errno 28] No space left: 'a/b'"
    assert main[:4] == [*same, ["OSError", ascii(full)]]
    assert other[:4] == main[:4]
    assert main[4] == ["KeyError", ascii("'x'")]
    assert other[4] == ["RuntimeError", ascii("the main process failed (KeyError: 'x')")]
    assert (main[5], other[5]) == (["ValueError", "'a\\udcff'"], ["ValueError", ascii("a\\udcff")])
    assert other[6] == ["ValueError", ascii("x" * 1023)]
