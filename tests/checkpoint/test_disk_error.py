import errno
import os

import pytest

from videodit.checkpoint.disk_error import DiskError, describe_write_error, explain_write_errors, format_bytes

FULL = "the disk is full"
TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "a/0.0" in OCDBT database: Failed writing: "/w/d/caf9": Failed to write 1380352 '
    "bytes to file 4: No space left on device [os_error_code='28']"
)
RIEGELI = "write() failed: No space left on device; writing /w/s.tmp; at byte 4194304; Failed to close chunk_writer"


def with_cause(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (OSError(errno.EFBIG, "File too large"), "a file may not be so large there"),
        (OSError(errno.EROFS, "Read-only file system"), "the file system is read-only"),
        (OSError(errno.EIO, "Input/output error"), "the disk failed"),
        (ValueError(TENSORSTORE), FULL),
        (RuntimeError(RIEGELI), FULL),
        (with_cause(RuntimeError("the save failed"), OSError(errno.ENOSPC, "")), FULL),
        (ExceptionGroup("two", [ValueError("a"), OSError(errno.EROFS, "")]), "the file system is read-only"),
    ],
)
def test_an_error_of_the_disk_names_file_sizes_and_the_last_good_checkpoint(tmp_path, error, cause):
    for name in ("2", "10", "12.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    path = tmp_path / "checkpoints" / "12"
    text = describe_write_error(error, path, needed=1_380_352, workdir=tmp_path)
    text = text.replace("be read or written", "be written")
    assert text.startswith(f"{path} could not be written, since {cause} (it needs 1.38 MB, and ")
    assert f" of {os.statvfs(tmp_path).f_files} inodes are free)" in text
    assert "the last good checkpoint is that of step 10; " in text


def test_a_run_without_a_checkpoint_and_a_size_that_is_not_known(tmp_path):
    text = describe_write_error(OSError(errno.ENOSPC, ""), tmp_path / "new" / "file", workdir=tmp_path)
    assert "it needs" not in text
    assert "there is no checkpoint yet; make room" in text
    assert "checkpoint" not in describe_write_error(OSError(errno.ENOSPC, ""), tmp_path / "file")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no"), ValueError("shape"), KeyboardInterrupt()])
def test_other_errors_stay_as_they_are(tmp_path, error):
    assert describe_write_error(error, tmp_path) is None
    with pytest.raises(type(error)) as raised, explain_write_errors(tmp_path):
        raise error
    assert raised.value is error


def test_the_sentence_is_an_error_that_is_explained_once(tmp_path):
    with (
        pytest.raises(DiskError, match=r"inner could not be written") as raised,
        explain_write_errors(tmp_path / "outer"),
        explain_write_errors(tmp_path / "inner", needed=3),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"abc")
    assert isinstance(raised.value.__cause__, OSError)
    assert describe_write_error(raised.value, tmp_path) == str(raised.value)


def test_bytes_have_units():
    sizes = [0, 999, 1000, 999_499, 1_380_352, 2_000_000_000, 5 * 10**15]
    assert [format_bytes(size) for size in sizes] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "999 kB",
        "1.38 MB",
        "2 GB",
        "5e+03 TB",
    ]
