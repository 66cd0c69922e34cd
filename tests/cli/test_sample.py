"""The prompts file of `videodit sample`: read within limits, before anything is loaded."""

import os

import pytest

from videodit.cli.main import main
from videodit.cli.sample import MOST_PROMPTS


def sparse(path):
    with path.open("wb") as file:
        file.truncate(2**32)


FILES = {
    "large": (sparse, f"more than {MOST_PROMPTS} bytes"),
    "pipe": (os.mkfifo, "a pipe, and no file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device, and no file"),
    "folder": (os.mkdir, "a folder, and no file"),
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
