"""What is known of a step once it is complete: checked, shown, written."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from videodit.checkpoint.checkpoints import Checkpoints
from videodit.train.metrics_log import MetricsLog, NoLog
from videodit.train.progress import TerminalProgress
from videodit.train.speed import Meter


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is no longer a number; the checkpoints hold only states from before."""


class Report:
    """Keeps the metrics of the last step on the devices until they are asked for, so that logging never holds up work.

    Args:
        log_every: steps between entries of the metrics log.
        steps: the last step, which always has an entry.
    """

    def __init__(
        self,
        log: MetricsLog | NoLog,
        progress: TerminalProgress,
        meter: Meter,
        checkpoints: Checkpoints,
        *,
        log_every: int,
        steps: int,
    ):
        self.log, self.progress, self.meter, self.checkpoints = log, progress, meter, checkpoints
        self.log_every, self.steps = log_every, steps
        self.latest: dict[str, float] = {}
        self._pending: tuple[int, Mapping[str, jax.Array], tuple[Any, ...], Mapping[str, float]] | None = None

    def expect(
        self, step: int, metrics: Mapping[str, jax.Array], clip_ids: tuple[Any, ...], epochs: Mapping[str, float]
    ) -> None:
        """Takes the metrics of a step that has been dispatched, and the epochs of its data sets."""
        self._pending = step, metrics, clip_ids, epochs

    def settle(self) -> None:
        """Waits for the step that is expected, if any; checks, shows and, when due, writes its metrics.

        Raises:
            NonFiniteLoss: naming the step, its clips and the last good checkpoint.
        """
        if self._pending is None:
            return
        (step, metrics, clip_ids, epochs), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        if not values.pop("finite"):
            raise NonFiniteLoss(self._complaint(step, values, clip_ids))
        clips = round(values.pop("clips"))
        self.meter.tick(clips)
        self.progress.update(step, values["loss"], clips)
        if step % self.log_every == 0 or step == self.steps:
            told = {f"epochs/{name}": float(f"{value:.6g}") for name, value in epochs.items()}
            self.write(step, values | self.meter.read() | told)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers of a step to the metrics log."""
        self.log.write(step, values)
        self.latest |= values

    def announce(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers of a step to the metrics log and says them on the terminal."""
        self.write(step, values)
        self.progress.say(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def pause(self) -> None:
        """Settles, and leaves what follows out of the measured speed."""
        self.settle()
        self.meter.pause()

    def _complaint(self, step: int, values: Mapping[str, Any], clip_ids: tuple[Any, ...]) -> str:
        last = self.checkpoints.latest_step()
        good = "there is no checkpoint yet" if last is None else f"the last good checkpoint is that of step {last}"
        return (
            f"step {step} is not finite (loss {values['loss']}, gradient norm {values['grad_norm']}) on the clips "
            f"{', '.join(_flat(clip_ids))}; {good}"
        )


def _flat(clip_ids: tuple[Any, ...]) -> Iterator[str]:
    """The clips of plain and of packed rows."""
    for row in clip_ids:
        yield from (row,) if isinstance(row, str) else filter(None, row)
