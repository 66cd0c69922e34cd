"""The prompts file of `videodit sample`: read within limits, before anything is loaded."""

import argparse
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from videodit_data.toyworld.captions import parse

from tests.processes import ROOT
from videodit.cli.main import main
from videodit.cli.sample import EXAMPLES, MOST_PROMPTS, _read_prompts


def sparse(path):
    with path.open("wb") as file:
        file.truncate(2**32)


def bind(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))


FILES = {
    "large": (sparse, f"more than {MOST_PROMPTS} bytes"),
    "endless": (lambda path: path.symlink_to("/dev/zero"), f"more than {MOST_PROMPTS} bytes"),
    "nothing": (lambda path: path.symlink_to("/dev/null"), "has no prompts"),
    "socket": (bind, "a socket, not a regular file"),
    "folder": (os.mkdir, "a folder, not a regular file"),
    "bytes": (lambda path: path.write_bytes(b"a fox\n\xff"), "not UTF-8 at byte 6"),
    "blank": (lambda path: path.write_text("\n \n"), "has no prompts"),
    "missing": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_prompts_file_that_cannot_be_used_gets_one_sentence(kind, tmp_path, capfd):
    make, message = FILES[kind]
    make(tmp_path / "prompts.txt")
    words = ["sample", "--checkpoint", "x", "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    printed = capfd.readouterr().err
    assert message in printed and "prompts.txt" in printed and len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def write_slowly(path, data):
    with open(path, "wb", buffering=0) as pipe:
        for start in range(0, len(data), 5):
            pipe.write(data[start : start + 5])


def read(path):
    return _read_prompts(argparse.Namespace(prompt=None, prompts=Path(path), out=Path("out")))[0]


def test_prompts_come_from_a_pipe_however_slowly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=write_slowly, args=(tmp_path / "pipe", "a red fox\n\n a box \nein Bär".encode()))
    writer.start()
    assert read(tmp_path / "pipe") == ["a red fox", "a box", "ein Bär"]
    writer.join()


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="the system has no /dev/fd")
def test_prompts_come_from_an_open_descriptor():
    reader, writer = os.pipe()
    os.write(writer, b"a fox\n")
    os.close(writer)
    assert read(f"/dev/fd/{reader}") == ["a fox"]
    os.close(reader)


PROGRAM = "import sys; from tests.cli.test_sample import read; print(read(sys.argv[1]))"


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="the system has no /dev/stdin")
@pytest.mark.parametrize("words", ["echo a fox | {} /dev/stdin", "{} <(echo a fox)", "{} /dev/stdin <<< 'a fox'"])
def test_prompts_come_from_a_shell(words):
    program = f"{sys.executable} -c '{PROGRAM}'"
    done = subprocess.run(["bash", "-c", words.format(program)], capture_output=True, text=True, check=True)
    assert done.stdout == "['a fox']\n"


def test_prompts_that_are_shown_for_the_quickstart_are_captions_of_its_world():
    texts = EXAMPLES + (ROOT / "README.md").read_text() + (ROOT / "docs" / "extending.md").read_text()
    prompts = re.findall(r'runs/(?:quickstart|aspect)\S* --prompt "([^"]*)"', texts)
    prompts += re.findall(r'generate\("([^"]*)"', texts) + list(
        re.findall(r'generate\(\["([^"]*)", "([^"]*)"\]', texts)[0]
    )
    assert len(prompts) >= 8 and all(parse(prompt) for prompt in prompts)
