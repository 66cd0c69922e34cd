import errno
import os

import numpy as np
import pytest
from videodit_data import video
from videodit_data.storage import manifest, whole_file
from videodit_data.storage.records import RecordSource, write_packed
from videodit_data.storage.whole_file import name_disk_errors, replace_whole

FRAMES = np.random.default_rng(0).integers(0, 256, (9, 128, 128, 3), dtype=np.uint8)
WRITERS = {
    "text": lambda path, size: manifest.write_whole(path, "x" * size),
    "shard": lambda path, size: write_packed(path, [os.urandom(size)]),
    "video": lambda path, size: video.encode(path, FRAMES[: 1 + 8 * (size > 4000)], 8),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_that_does_not_fit_is_named_and_the_old_one_stays(tmp_path, file_limit, write):
    path = tmp_path / "file"
    write(path, 10)
    before = path.read_bytes()
    with file_limit(70_000), pytest.raises(OSError, match="File too large") as raised:
        write(path, 200_000)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == before
    write(path, 200_000)
    assert os.listdir(tmp_path) == ["file"]
    assert path.stat().st_size > 70_000


def test_an_error_of_the_writer_is_its_own(tmp_path):
    for error in (RuntimeError("no"), FileNotFoundError(errno.ENOENT, "no", "elsewhere"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, replace_whole(tmp_path / "file") as scratch:
            scratch.write_text("half")
            raise error
        assert raised.value is error
        assert getattr(error, "filename", "elsewhere") == "elsewhere"
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("code", whole_file.DISK_ERRORS)
def test_every_error_of_a_disk_is_known_by_its_number_or_its_text(code):
    for error in (OSError(code, os.strerror(code)), RuntimeError(f"write() failed: {os.strerror(code)}; at byte 3")):
        with pytest.raises(OSError) as raised, name_disk_errors("a/b"):
            raise error
        assert (raised.value.errno, raised.value.filename) == (code, "a/b")


def test_a_shard_is_read_back_as_it_was_written(tmp_path):
    records = [os.urandom(size) for size in (1, 100_000)]
    write_packed(tmp_path / "a.array_record", records)
    source = RecordSource([tmp_path / "a.array_record"])
    assert [source.packed(number) for number in range(2)] == records
