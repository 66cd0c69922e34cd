"""The speed of a run: clips/s, tokens/s, and model FLOPs utilization (MFU)."""

import time

from videodit.parallel.chips import find_chip


def peak_flops(device_kind: str) -> float | None:
    """Return the peak dense bf16 FLOP/s of a JAX device by its `device_kind`; None for an unknown kind."""
    chip = find_chip(device_kind)
    return chip and chip.flops / chip.devices


class SpeedMeter:
    """Measures speed between two readings; pauses (compiling, evaluating, saving) do not count.

    Args:
        tokens: video tokens of a batch; in buckets, what it has room for.
        flops: FLOPs that a batch costs in training; None if not known.
        peak: FLOP/s of all devices together; None if not known.
    """

    def __init__(self, tokens: int, flops: float | None, peak: float | None):
        self.tokens, self.flops, self.peak = tokens, flops, peak
        self._last: float | None = None
        self._seconds, self._steps, self._clips = 0.0, 0, 0

    def tick(self, clips: int) -> None:
        """Count a step on so many clips as complete."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds += now - self._last
            self._steps += 1
            self._clips += clips
        self._last = now

    def pause(self) -> None:
        """Leave out the time from now until the next step is complete."""
        self._last = None

    def read(self) -> dict[str, float]:
        """Return `clips_per_s`, `tokens_per_s` and, where known, `mfu` since the last reading; empty without a step."""
        if not self._steps:
            return {}
        seconds = max(self._seconds, 1e-9)
        rate = self._steps / seconds
        speed = {"clips_per_s": self._clips / seconds, "tokens_per_s": rate * self.tokens}
        if self.flops and self.peak:
            speed["mfu"] = rate * self.flops / self.peak
        self._seconds, self._steps, self._clips = 0.0, 0, 0
        return {name: float(f"{value:.4g}") for name, value in speed.items()}
