"""How fast a run goes, in clips and tokens a second and as a share of what the chips can do."""

import time

from videodit.parallel.chips import chip_of


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bf16 FLOP/s of a JAX device by its `device_kind`; None for a kind that is not in the table."""
    chip = chip_of(device_kind)
    return chip and chip.flops / chip.devices


class Meter:
    """Measures speed between two readings; pauses (compiling, evaluating, saving) count for nothing.

    Args:
        clips: clips of a batch.
        tokens: video tokens of a clip.
        flops: FLOPs that one clip costs in training; None if not known.
        peak: FLOP/s of all devices together; None if not known.
    """

    def __init__(self, clips: int, tokens: int, flops: float | None, peak: float | None):
        self.clips, self.tokens, self.flops, self.peak = clips, tokens, flops, peak
        self._last: float | None = None
        self._seconds, self._steps = 0.0, 0

    def tick(self) -> None:
        """Notes that a step is complete."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds += now - self._last
            self._steps += 1
        self._last = now

    def pause(self) -> None:
        """Leaves out the time from now until the next step is complete."""
        self._last = None

    def read(self) -> dict[str, float]:
        """`clips_per_s`, `tokens_per_s` and, where known, `mfu` since the last reading; empty without a step."""
        if not self._steps:
            return {}
        rate = self.clips * self._steps / max(self._seconds, 1e-9)
        self._seconds, self._steps = 0.0, 0
        speed = {"clips_per_s": rate, "tokens_per_s": rate * self.tokens}
        if self.flops and self.peak:
            speed["mfu"] = rate * self.flops / self.peak
        return {name: float(f"{value:.4g}") for name, value in speed.items()}
