import os

import pytest

from videodit.checkpoint.atomic_write import AppendFile, replace_atomically, write_text_atomically
from videodit.checkpoint.disk_error import DiskError


def test_a_text_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path, file_limit):
    path = tmp_path / "config.json"
    write_text_atomically(path, "old")
    sentence = r"config.json could not be written, since .* \(it needs 5 kB, and "
    with file_limit(4096), pytest.raises(DiskError, match=sentence):
        write_text_atomically(path, "n" * 5000)
    assert path.read_text() == "old"
    write_text_atomically(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert os.listdir(tmp_path) == ["config.json"]


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path):
    write_text_atomically(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), replace_atomically(tmp_path / "a") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_of_an_entry_that_does_not_fit_nothing_is_in_the_file(tmp_path, file_limit):
    (tmp_path / "checkpoints" / "30").mkdir(parents=True)
    file = AppendFile(tmp_path / "metrics.jsonl")
    file.append(b"a" * 4000)
    sentence = r"needs 200 bytes, .*the last good checkpoint is that of step 30"
    with file_limit(4096), pytest.raises(DiskError, match=sentence):
        file.append(b"b" * 200)
    file.append(b"c" * 96)
    file.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"a" * 4000 + b"c" * 96
