import pytest

from videodit.train import speed
from videodit.train.speed import SpeedMeter, peak_flops


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU7x", 1153.5e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("cpu", None),
    ],
)
def test_peaks_of_chips(kind, peak):
    assert peak_flops(kind) == peak


def test_speed_leaves_out_the_first_step_and_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    meter = SpeedMeter(tokens=40, flops=4e9, peak=1e12)

    def after(seconds):
        now[0] += seconds
        meter.tick(4)

    after(100)  # compiling
    assert meter.read() == {}
    after(2)
    after(2)
    meter.pause()
    after(50)  # evaluating
    after(2)
    assert meter.read() == {"clips_per_s": 2.0, "tokens_per_s": 20.0, "mfu": 0.002}
    assert meter.read() == {}


def test_mfu_is_left_out_where_it_cannot_be_known():
    for flops, peak in ((None, 1e12), (1e9, None)):
        meter = SpeedMeter(10, flops, peak)
        meter.tick(4)
        meter.tick(4)
        assert set(meter.read()) == {"clips_per_s", "tokens_per_s"}
