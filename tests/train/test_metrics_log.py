import struct

from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from videodit.checkpoint.metrics_file import drop_after, read_metrics
from videodit.train.metrics_log import MetricsLog


def events(workdir):
    """Read TensorBoard's events: records of a length, its checksum, the event and its checksum."""
    parsed_events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            parsed_events.append(Event.FromString(data[12 : 12 + length]))
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


def test_dropping_needs_no_file(tmp_path):
    drop_after(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())
