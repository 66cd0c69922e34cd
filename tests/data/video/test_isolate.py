"""Functions called in processes of their own: results come back, and a crash is an error of one file."""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from videodit_data import video
from videodit_data.boundary import child_process
from videodit_data.video import VideoError, isolate
from videodit_data.video.isolate import Isolated, Limits


@pytest.fixture
def film(numbered, tmp_path):
    video.encode(tmp_path / "film.mp4", numbered(12), 8)
    return tmp_path / "film.mp4"


def test_dataclasses_and_bytes_come_back_from_one_process(film):
    with Isolated("videodit_data.video:probe") as probe:
        assert video.VideoInfo(**probe(film)) == video.probe(film)
        process = probe._all[0]._process
        probe(film)
        assert len(probe._all) == 1 and probe._all[0]._process is process
    with Isolated("tests.data.video.isolated:read_bytes") as read_bytes:
        assert read_bytes(film) == film.read_bytes()
    assert process.poll() is not None  # closed


def test_errors_of_any_kind_name_the_file_and_keep_the_process(film):
    with Isolated("tests.data.video.isolated:cut_length") as cut_length:
        for arguments, message in (
            ({"start": 90, "frames": 5, "recode": {}}, r"^a film: has 12 frames, cannot give 5 from frame 90 on\.$"),
            ({"start": 0, "frames": 5, "recode": {"crf": 99}}, r"^a film: ValueError, Encoding needs a crf of 0 to 51"),
            ({"start": 0}, r"^a film: TypeError, .*missing"),
        ):
            with pytest.raises(VideoError, match=message):
                cut_length(film, name="a film", **arguments)
        assert len(cut_length._all) == 1 and cut_length(film, start=0, frames=1, recode={})


def test_large_files_have_more_time(film):
    assert Limits(seconds=5).time(2**30) == 5
    assert Limits(seconds=5, seconds_per_mebibyte=2).time(3 * 2**20) == 11
    endless = film.parent / "endless.mp4"
    os.mkfifo(endless)
    message = r"endless.mp4: takes longer than 0.2 seconds"
    reader = Isolated("tests.data.video.isolated:read_bytes", Limits(seconds=0.2))
    with reader, pytest.raises(VideoError, match=message):
        reader(endless, name="endless.mp4")


WORK = "videodit_data.footage.worker:run"
CUT_REQUEST = {"what": "cut", "start": 0, "frames": 3, "recode": {"preset": "ultrafast"}}


def test_what_the_machine_does_is_no_verdict_on_a_file(film):
    pytest.importorskip("apache_beam")
    with Isolated(WORK) as work:
        for path, out, message in (
            (film.parent / "none.mp4", "x", r"^a film: cannot be read or worked on now \(No such file or directory\)"),
            (film, film.parent / "nowhere" / "x", r"^a film: cannot be read .* \(No such file"),
            (
                film,
                "/dev/full",
                r"^a film: cannot .* now \(No space left on device\); run the command again\.$",
            ),
        ):
            with pytest.raises(RuntimeError, match=message):
                work(path, name="a film", out=str(out), **CUT_REQUEST)
        wide = film.with_name("wide.mp4")
        video.encode(wide, np.zeros((3, 2, 800, 3), np.uint8), 8)
        with pytest.raises(VideoError, match="no JPEG can be made"):
            work(wide, name="wide.mp4", what="thumbnail", start=0, frames=3, out=str(film.with_name("x")))
    assert isolate._system_error(av.error.OSError(5, "I/O error", "film"), str(film)) is None  # a demuxer's word
    assert isolate._system_error(av.error.FileNotFoundError(2, "gone", "film"), str(film.parent / "gone"))


def test_a_process_that_is_killed_has_another_try(film):
    flag = film.parent / "killed"
    with Isolated("tests.data.video.isolated:probe") as probe:
        flag.write_text("x")
        assert probe(film, name="film.mp4", flag=str(flag)) == 12
        flag.write_text("xx")
        with pytest.raises(VideoError, match=r"film.mp4: the decoder ended itself \(SIGKILL\)"):
            probe(film, name="film.mp4", flag=str(flag))


def test_a_process_that_cannot_start_is_reported(film):
    message = r"No process for videodit_data\.nowhere:nothing"
    with Isolated("videodit_data.nowhere:nothing") as nothing, pytest.raises(RuntimeError, match=message):
        nothing(film)


def test_a_process_whose_parent_does_not_end_it_ends_itself(tmp_path):
    function = "tests.data.video.isolated:decode_for_ever"
    process = child_process.start([sys.executable, "-m", isolate.__name__, function, "1000", str(os.getpid())])
    assert process.stdout.readline() == b"ready\n"
    request = {"path": str(tmp_path / "a.mp4"), "name": "a.mp4", "arguments": {}, "seconds": 0.1}
    process.communicate(json.dumps(request).encode() + b"\n")
    assert process.returncode == -signal.SIGALRM


def test_processes_that_were_closed_are_not_started_again(film, tmp_path):
    with Isolated("tests.data.video.isolated:decode_for_ever") as decode, ThreadPoolExecutor(1) as pool:
        call = pool.submit(decode, film)
        while not film.with_suffix(".decoding").exists():
            time.sleep(0.01)
        decode.close()
        with pytest.raises((RuntimeError, VideoError)):
            call.result()
        with pytest.raises(RuntimeError):
            decode(film)
    assert all(worker._process is None for worker in decode._all)
