"""Log a step once it is complete: check its metrics, show them, write them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax

from videodit.checkpoint.checkpoints import Checkpoints
from videodit.checkpoint.disk_error import describe_last_step
from videodit.train.device_prefetcher import DeviceBatch
from videodit.train.metrics_log import MetricsLog, NoLog
from videodit.train.progress import TerminalProgress
from videodit.train.speed import SpeedMeter


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is no longer a number; the checkpoints hold only states from before."""


@dataclass(frozen=True)
class PendingStep:
    """A step that has been dispatched: its metrics on the devices, and the batch it was on."""

    step: int
    metrics: Mapping[str, jax.Array]
    batch: DeviceBatch


class StepLog:
    """Keeps the metrics of the last step on the devices until the next one is dispatched: logging delays no work.

    Args:
        log_every: steps between entries of the metrics log.
        last_step: always has an entry.
    """

    def __init__(
        self,
        log: MetricsLog | NoLog,
        progress: TerminalProgress,
        meter: SpeedMeter,
        checkpoints: Checkpoints,
        *,
        log_every: int,
        last_step: int,
    ):
        self.log, self.progress, self.meter, self.checkpoints = log, progress, meter, checkpoints
        self.log_every, self.last_step = log_every, last_step
        self.latest: dict[str, float] = {}
        self._pending: PendingStep | None = None

    def defer(self, step: int, metrics: Mapping[str, jax.Array], batch: DeviceBatch) -> None:
        """Take the metrics of a step that has been dispatched."""
        self._pending = PendingStep(step, metrics, batch)

    def flush(self) -> None:
        """Wait for the deferred step, if any; check, show and, when due, write its metrics.

        Raises:
            NonFiniteLoss: naming the step, its clips and the last good checkpoint.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(dict(pending.metrics)).items()}
        if not values.pop("finite"):
            raise NonFiniteLoss(self._describe_failure(pending, values))
        clips = round(values.pop("clips"))
        self.meter.tick(clips)
        self.progress.update(pending.step, values["loss"], clips)
        if pending.step % self.log_every == 0 or pending.step == self.last_step:
            epochs = {f"epochs/{name}": float(f"{value:.6g}") for name, value in pending.batch.epochs.items()}
            self.write(pending.step, values | self.meter.read() | epochs)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics of a step to the metrics log."""
        self.log.write(step, values)
        self.latest |= values

    def announce(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics of a step to the metrics log and to the terminal."""
        self.write(step, values)
        self.progress.message(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def pause(self) -> None:
        """Flush, and leave what follows out of the measured speed."""
        self.flush()
        self.meter.pause()

    def _describe_failure(self, pending: PendingStep, values: Mapping[str, float]) -> str:
        last = self.checkpoints.latest_step()
        return (
            f"step {pending.step} is not finite (loss {values['loss']}, gradient norm {values['grad_norm']}) on the "
            f"clips {', '.join(_flat(pending.batch.clip_ids))}; {describe_last_step(last)}"
        )


def _flat(clip_ids: tuple[str | tuple[str, ...], ...]) -> Iterator[str]:
    """Yield the clips of plain and of packed sequences."""
    for row in clip_ids:
        yield from (row,) if isinstance(row, str) else filter(None, row)
