import errno
import os
import struct

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from videodit.checkpoint.disk_error import DiskError
from videodit.checkpoint.metrics_file import read_metrics
from videodit.train.metrics_log import MetricsLog


def events(workdir):
    """Read TensorBoard's events: records of a length, its checksum, the event and its checksum."""
    parsed_events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = data[12 : 12 + length]
            checksums = [masked_crc32c(data[:8]), masked_crc32c(event)]
            assert list(struct.unpack("<II", data[8:12] + data[12 + length : 16 + length])) == checksums
            parsed_events.append(Event.FromString(event))
            data = data[16 + length :]
    return [(event.step, value) for event in parsed_events for value in event.summary.value]


def test_numbers_and_pictures_are_in_both_logs(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 0.1})
    log.write(2, {"eval/loss": 0.25})
    path = log.picture(2, Image.new("RGB", (6, 4), (255, 0, 0)))
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.1}, {"step": 2, "eval/loss": 0.25}]
    with Image.open(path) as picture:
        assert picture.size == (6, 4)
    tags = [(step, value.tag) for step, value in events(tmp_path)]
    assert tags == [(1, "train/loss"), (2, "eval/loss"), (2, "samples")]


def test_a_run_that_resumes_reads_as_one_straight_run(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": step / 8})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    log = MetricsLog(tmp_path, 2)
    log.write(3, {"loss": 9.0})
    log.close()
    assert [(e["step"], e["loss"]) for e in read_metrics(tmp_path)] == [(1, 0.125), (2, 0.25), (3, 9.0)]


def test_a_disk_that_refuses_the_events_alone_costs_the_events_alone(tmp_path, caplog):
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 0.5})
    whole = events(tmp_path)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), log._events._file._file.fileno())
    for step in range(2, 30):  # more than the queue of a writing thread would hold
        log.write(step, {"loss": 0.5, "norm": 1.0})
    log.picture(29, Image.new("RGB", (6, 4)))
    log.close()
    assert caplog.text.count("training goes on without TensorBoard's events: ") == 1
    assert "could not be written, since the disk is full" in caplog.text
    assert [entry["step"] for entry in read_metrics(tmp_path)] == list(range(1, 30))
    assert events(tmp_path) == whole


def test_a_workdir_without_a_place_for_events_has_numbers(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("in the way")
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 0.5})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
    assert "training goes on without TensorBoard's events" in caplog.text


def test_a_picture_that_the_disk_refuses_leaves_no_part(tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    log = MetricsLog(tmp_path, 0)

    def refuse(image, file, format):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(DiskError, match=r"00000006.png could not be .*the last good checkpoint is that of step 4"):
        log.picture(6, Image.new("RGB", (6, 4)))
    log.close()
    assert not list((tmp_path / "samples").iterdir())
