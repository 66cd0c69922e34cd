"""The configuration of a reader: which data sets are read, and how batches are made of them."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from videodit_data.reading.buckets import Buckets, OneSize
from videodit_data.reading.conditions import get_condition
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing

# Names of fields in saved states, which keep those of the first release.
_SAVED_NAMES = {"batch_size": "rows", "resolutions": "sides", "max_upscale": "upsample"}


@dataclass(frozen=True)
class ReaderConfig:
    """Settings of the data that are read and of their batches; `as_evaluation` turns them into one pass in order.

    Attributes:
        datasets: data sets with weights, all of videos or all of latents.
        shapes: one size for all clips; buckets (latents keep their own shapes, and share a batch's tokens); or packed
            sequences of latents.
        batch_size: batch entries over all processes; buckets have as many as their tokens allow.
        multiple: the number of devices that share a bucket's batch, whose size is a multiple of it.
        caption_dropout: probability that a caption is replaced by the empty one.
        shuffle: whether clips come in another order every epoch.
        repeat: whether batches are endless; otherwise one pass, whose last batches are filled up with padding.
        augment: whether window, crop and caption are random; otherwise the first, the centre and the first.
        num_threads: threads that read and decode.
        prefetch: batches read ahead.
        conditions: names of registered conditions (`reading.conditions`) that batches carry.
    """

    datasets: tuple[WeightedDataset, ...]
    shapes: OneSize | Buckets | Packing = field(default_factory=OneSize)
    batch_size: int = 16
    multiple: int = 1
    caption_dropout: float = 0.1
    seed: int = 0
    shuffle: bool = True
    repeat: bool = True
    augment: bool = True
    num_threads: int = 4
    prefetch: int = 4
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("multiple", 1), ("num_threads", 1), ("prefetch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}.")
        if not self.datasets:
            raise ValueError("A reader needs at least one data set.")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout is a probability, not {self.caption_dropout}.")
        if self.caption_dropout and not self.augment:
            raise ValueError("Captions are dropped only with augment=True; set caption_dropout=0.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"The seed must lie in 0..2**32-1, not {self.seed}.")
        for name in self.conditions:
            get_condition(name)
        if self.conditions and self.packing:
            raise ValueError("Packed sequences carry no conditions: use buckets or one size, or name no conditions.")

    @property
    def packing(self) -> Packing | None:
        """Return the packing of sequences, None if they are not packed."""
        return self.shapes if isinstance(self.shapes, Packing) else None

    def as_evaluation(self) -> "ReaderConfig":
        """Return the same clips, each once and in order, without any randomness."""
        return replace(self, shuffle=False, repeat=False, augment=False, caption_dropout=0.0)

    def identity(self) -> dict[str, Any]:
        """Return all settings that the sequence of batches depends on, apart from the data, as plain values.

        The devices that share a batch are not part of it: a run may resume on others.
        """
        free = {"datasets", "multiple", "num_threads", "prefetch"} | ({"conditions"} if not self.conditions else set())
        return _with_saved_names({name: value for name, value in asdict(self).items() if name not in free})


def _with_saved_names(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {_SAVED_NAMES.get(name, name): _with_saved_names(value) for name, value in values.items()}
