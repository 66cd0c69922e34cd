"""The prompts file of `videodit sample`: read within limits, before anything is loaded."""

import os
import re

import pytest
from videodit_data.toyworld.captions import parse

from tests.processes import ROOT
from videodit.cli.main import main
from videodit.cli.sample import EXAMPLES, MOST_PROMPTS


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


def test_prompts_that_are_shown_for_the_quickstart_are_captions_of_its_world():
    texts = EXAMPLES + (ROOT / "README.md").read_text() + (ROOT / "docs" / "extending.md").read_text()
    prompts = re.findall(r'runs/(?:quickstart|aspect)\S* --prompt "([^"]*)"', texts)
    prompts += re.findall(r'generate\("([^"]*)"', texts) + list(
        re.findall(r'generate\(\["([^"]*)", "([^"]*)"\]', texts)[0]
    )
    assert len(prompts) >= 8 and all(parse(prompt) for prompt in prompts)
