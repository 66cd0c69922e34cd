import errno
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from videodit_data import video
from videodit_data.storage import manifest, whole_file
from videodit_data.storage.records import RecordSource, write_packed
from videodit_data.storage.whole_file import check_creatable, name_disk_errors, replace_whole, write_all

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


def test_a_file_is_on_the_disk_before_it_replaces_another_and_its_name_after(tmp_path, monkeypatch):
    calls, path = [], tmp_path / "file"

    def call(name, function):
        def record(*arguments):
            if name == "fsync":
                opened = os.readlink(f"/proc/self/fd/{arguments[0]}") if sys.platform == "linux" else "?"
                calls.append((name, os.path.basename(opened), path.exists()))
            else:
                calls.append((name, *(os.path.basename(each) for each in arguments)))
            return function(*arguments)

        return record

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, call(name, getattr(os, name)))
    with replace_whole(path) as scratch:
        scratch.write_text("all")
        assert not calls
    if sys.platform == "linux":
        assert calls == [
            ("fsync", "file.tmp", False),
            ("replace", "file.tmp", "file"),
            ("fsync", tmp_path.name, True),
        ]
    assert [each[0] for each in calls] == ["fsync", "replace", "fsync"] and path.read_text() == "all"


def test_what_does_not_reach_the_disk_replaces_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error") as raised, replace_whole(path) as scratch:
        scratch.write_text("after")
    assert raised.value.filename == str(path) and path.read_text() == "before" and os.listdir(tmp_path) == ["file"]


def test_a_file_system_that_syncs_no_directories_is_no_error(tmp_path, monkeypatch):
    def sync(descriptor, fsync=os.fsync):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with replace_whole(tmp_path / "file") as scratch:
        scratch.write_text("all")
    assert (tmp_path / "file").read_text() == "all"


def test_all_bytes_are_written_however_few_the_system_takes_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda descriptor, data, write=os.write: write(descriptor, data[:3]))
    data = os.urandom(100)
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), data)
    assert (tmp_path / "file").read_bytes() == data


def test_what_cannot_be_created_is_known_before(tmp_path, monkeypatch):
    check_creatable(tmp_path / "new" / "folders" / "file")
    (tmp_path / "file").touch()
    check_creatable(tmp_path / "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, message in (
        (tmp_path / "file" / "a" / "b", "file is not a folder"),
        (tmp_path / "dangling", "a link to"),
        (tmp_path, "it is a folder"),
        (Path("/"), "it is a folder"),
    ):
        with pytest.raises(ValueError, match=f"^{path} cannot be written: .*{message}"):
            check_creatable(path, is_file=True)
    check_creatable(tmp_path)
    check_creatable(Path("/"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    for path in (tmp_path / "file", tmp_path / "new" / "file"):
        with pytest.raises(ValueError, match=f"^{path} cannot be written: you may not write to {tmp_path}; choose"):
            check_creatable(path)
