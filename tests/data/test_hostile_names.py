"""Names of files that look like addresses, options or patterns: each is the file of that name, and nothing is asked."""

import random
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videodit_data import video
from videodit_data.ingest import ingest
from videodit_data.video import transcode
from videodit_data.video.isolate import Isolated
from videodit_data.video.pictures import opened_picture

SCHEMES = (
    *(
        "http",
        "https",
        "tcp",
        "tls",
        "udp",
        "unix",
        "ftp",
        "rtmp",
        "rtsp",
        "rtp",
        "sftp",
        "gopher",
        "srt",
        "mmsh",
        "icecast",
    ),
    *(
        "pipe",
        "data",
        "file",
        "fd",
        "concat",
        "concatf",
        "cache",
        "crypto",
        "async",
        "md5",
        "tee",
        "gs",
        "s3",
        "hdfs",
        "azfs",
    ),
)
PLAIN = (
    "-i",
    "--out=x",
    "subfile,,start,0,end,9,,:x",
    "%03d",
    "x*[a-z]?",
    "pipe:0",
    "data:video/mp4;base64,AAAA",
    "-",
    "~",
)


@pytest.fixture
def listener(monkeypatch):
    """Listen on this machine; yields the port, and fails when anything connects to it, or Python looks for a host."""
    connections = []

    def connect(self, address):
        connections.append(address)
        raise OSError("no network in this test")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def accept() -> None:
            try:
                while True:
                    server.accept()[0].close()
                    connections.append("a connection")
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        monkeypatch.setattr(socket.socket, "connect", connect)
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert not connections


def hostile_names(port: int) -> list[str]:
    """Return relative names of folders and files whose path looks like an address on this machine, or an option."""
    rng = random.Random(0)
    folders = [f"{rng.choice([scheme, scheme.upper()])}:/127.0.0.1:{port}" for scheme in SCHEMES]
    return [f"{name}/x.mp4" for name in (*folders, *PLAIN)] + [f"{name}.mp4" for name in PLAIN if "/" not in name]


def test_a_folder_of_such_names_is_ingested_and_no_address_is_opened(listener, numbered, tmp_path, monkeypatch):
    names = hostile_names(listener)
    for number, name in enumerate(names):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(f"clip {number}")
        if number < 8 or name.startswith(("-", "%", "data")):
            path.write_bytes(video.encode(None, numbered(2), 8))
        else:
            path.write_bytes(path.parent.name.encode())  # refused by content, after it is opened
    monkeypatch.chdir(tmp_path / "in")
    dataset = ingest(Path(), tmp_path / "set")
    unreadable = {item.file: item.reason for item in dataset.left_out}
    assert dataset.clips + len(unreadable) == len(names) and dataset.clips >= 8
    assert all("Invalid data" in reason for reason in unreadable.values())


READERS = {
    "probe": video.probe,
    "verify": video.verify,
    "decode": video.decode,
    "decode_clip": lambda path: video.decode_clip(path, fps=8, frames=1),
    "index": video.index,
    "cut": lambda path: transcode.cut(path, 0, 1, transcode.Recode(preset="ultrafast")),
}


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_reads_the_file_of_that_name(reader, listener, numbered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = video.encode(None, numbered(2), 8)
    for name in hostile_names(listener):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
        READERS[reader](name)


def test_what_is_missing_under_such_a_name_is_a_missing_file(listener, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Isolated("videodit_data.video:probe") as probe:
        for name in hostile_names(listener):
            for source in (name, name.replace(":/", "://", 1)):
                with pytest.raises(video.VideoError, match="No such file"):
                    video.probe(source)
        with pytest.raises(RuntimeError, match="No such file"):
            probe(f"http:/127.0.0.1:{listener}/x.mp4")


def test_videos_and_pictures_are_written_and_read_under_such_names(listener, numbered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in hostile_names(listener):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        video.encode(name, numbered(2, 16, 16), 8)
        assert video.probe(Path(name)).frames == 2
        picture = Path(name).with_suffix(".png")
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(picture)
        with opened_picture(str(picture)) as opened:
            assert opened.size == (6, 4)
        assert video.decode(picture).shape == (1, 4, 6, 3)
    assert not list(tmp_path.rglob(".encode-*"))
