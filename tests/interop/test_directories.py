import errno
import os

import pytest

from videodit.checkpoint.disk_error import DiskError
from videodit.interop.directories import create_directory


def test_a_directory_appears_when_it_is_complete(tmp_path):
    (tmp_path / "out.part" / "old").mkdir(parents=True)
    with create_directory(tmp_path / "out") as folder:
        assert not list(folder.iterdir()), "what a killed process left is gone"
        (folder / "weights").write_text("all")
        assert os.listdir(tmp_path) == ["out.part"]
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "weights").read_text() == "all"


@pytest.mark.parametrize(
    ("error", "kind"), [(KeyError("w"), KeyError), (OSError(errno.ENOSPC, "No space left on device"), DiskError)]
)
def test_an_error_leaves_nothing(tmp_path, error, kind):
    with pytest.raises(kind), create_directory(tmp_path / "out") as folder:
        (folder / "weights").write_text("half")
        raise error
    assert not os.listdir(tmp_path)


def test_one_process_at_a_time_creates_a_directory(tmp_path):
    with create_directory(tmp_path / "out") as folder:
        (folder / "weights").write_text("all")
        with (
            pytest.raises(ValueError, match="out is being written by another process"),
            create_directory(tmp_path / "out"),
        ):
            pass
    assert (tmp_path / "out" / "weights").read_text() == "all"
