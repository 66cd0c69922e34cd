"""Outputs of `videodit data` that cannot be written: one sentence before any work, and nothing is left behind."""

import os
from pathlib import Path

import pytest
from videodit_data import video

from tests.cli.test_footage import CONFIG
from tests.data import conftest as data_fixtures
from videodit.cli.main import main

numbered, data_set = data_fixtures.numbered, data_fixtures.data_set


@pytest.fixture(scope="module")
def inputs(numbered, data_set, tmp_path_factory) -> Path:
    """Return a folder of a data set and of a folder of footage."""
    root = tmp_path_factory.mktemp("inputs")
    data_set(root / "set", [5, 9])
    (root / "footage").mkdir()
    (root / "footage" / "a.mp4").write_bytes(video.encode(None, numbered(17), 8))
    (root / "footage" / "a.txt").write_text("a cube")
    return root


COMMANDS = {
    "toyworld": ["toyworld", "--clips", "2", "--processes", "1", "--out"],
    "ingest": ["ingest", "{}/footage", "--out"],
    "build": ["build", "--input", "{}/footage", "--config", f"{CONFIG}:whole", "--out"],
    "caption": ["caption", "{}/set", "--captioner", "json:dumps", "--out"],
    "tokenizer": ["tokenizer", "{}/set", "--vocabulary", "40", "--out"],
    "report": ["report", "{}/set", "--out"],
    "inspect": ["inspect", "{}/set", "--sheet"],
    "tfds": ["tfds", "{}/set", "--name", "x", "--root"],
}


def tree(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("place", ["read-only", "below a file", "a file"])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_gets_one_sentence(inputs, name, place, tmp_path, monkeypatch, capfd):
    if name in ("build", "report"):
        pytest.importorskip("apache_beam")
    file = tmp_path / "file.png"
    file.write_text("precious")
    out = {"read-only": tmp_path / "new" / "out.png", "below a file": file / "out.png", "a file": file}[place]
    if place == "read-only":  # root may write anywhere
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and access(path, mode))
    elif (name, place) == ("inspect", "a file"):
        pytest.skip("a contact sheet replaces a picture of its name")
    before = tree(tmp_path), tree(inputs)
    status = main(["data", *(word.format(inputs) for word in COMMANDS[name]), str(out)])
    printed = [line for line in capfd.readouterr().err.splitlines() if line.startswith("videodit: ")]
    assert status == 2 and len(printed) == 1
    assert {"read-only": "you may not write to", "below a file": "is not a folder", "a file": ""}[place] in printed[0]
    assert str(file if place == "a file" else out) in printed[0]
    assert (tree(tmp_path), tree(inputs)) == before


def test_a_contact_sheet_has_the_name_of_a_picture(inputs, tmp_path, capfd):
    assert main(["data", "inspect", str(inputs / "set"), "--sheet", str(tmp_path / "sheet.txt")]) == 2
    printed = capfd.readouterr()
    assert "sheet.txt is no picture: the name of a contact sheet ends in .png" in printed.err and not printed.out
    for suffix in (".png", ".jpg", ".JPEG", ".webp", ".gif"):
        assert main(["data", "inspect", str(inputs / "set"), "--sheet", str(tmp_path / f"sheet{suffix}")]) == 0
    assert len(os.listdir(tmp_path)) == 5
