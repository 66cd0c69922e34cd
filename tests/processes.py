"""Processes of tests: programs, their children, and whether they have ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 60
"""A limit for what should take one or two, on a machine that may be busy."""


def start_program(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program that heeds Ctrl-C, which the background jobs of a shell ignore."""
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    heed += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # which `nohup` has ignored
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", heed + text, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def find_descendants(pid: int) -> list[int]:
    """Return the processes that a process and its descendants have started."""
    found: list[int] = []
    for file in Path("/proc", str(pid), "task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *find_descendants(child)]
    return found


def wait_until_gone(pids: list[int]) -> None:
    """Wait until none of the processes runs; AssertionError if they do not end."""
    until = time.monotonic() + SECONDS
    while running := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < until, running
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
