"""What a loader is to serve, and the clips of its data sets: which of them, in which shape, in which order."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from videodit_data.reading.buckets import Buckets, OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing


@dataclass(frozen=True)
class ReaderConfig:
    """What is read and how it is served; `evaluation` turns it into one pass in order.

    Attributes:
        parts: data sets by weight, all of videos or all of latents.
        shapes: one size for all clips; buckets (latents keep their own shapes, and share a batch's tokens); or rows of
            one length that several clips of latents share.
        rows: of a batch, over all processes together; buckets have as many as their tokens allow.
        multiple: what the size of a bucket's batch is a multiple of (the devices that share it).
        caption_dropout: how often the caption is served empty.
        shuffle: anew every epoch. repeat: for ever; otherwise one pass, its last batches filled up with padding.
        augment: random window, crop and caption; otherwise the first, the centre and the first.
        num_threads: that read and decode. prefetch: batches read ahead.
    """

    parts: tuple[WeightedDataset, ...]
    shapes: OneSize | Buckets | Packing = field(default_factory=OneSize)
    rows: int = 16
    multiple: int = 1
    caption_dropout: float = 0.1
    seed: int = 0
    shuffle: bool = True
    repeat: bool = True
    augment: bool = True
    num_threads: int = 4
    prefetch: int = 4

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("multiple", 1), ("num_threads", 1), ("prefetch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}.")
        if not self.parts:
            raise ValueError("A loader needs at least one data set.")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout is a probability, not {self.caption_dropout}.")
        if self.caption_dropout and not self.augment:
            raise ValueError("Captions are dropped only with augment=True; set caption_dropout=0.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"The seed must lie in 0..2**32-1, not {self.seed}.")

    @property
    def packing(self) -> Packing | None:
        """How rows are shared, if they are."""
        return self.shapes if isinstance(self.shapes, Packing) else None

    def evaluation(self) -> "ReaderConfig":
        """The same clips, each once and in order, without any randomness."""
        return replace(self, shuffle=False, repeat=False, augment=False, caption_dropout=0.0)

    def identity(self) -> dict[str, Any]:
        """What the sequence of clips depends on, but for the data: plain numbers, lists and maps.

        Not the devices that share a batch: a run goes on with other ones.
        """
        free = ("parts", "multiple", "num_threads", "prefetch")
        return {name: value for name, value in asdict(self).items() if name not in free}
