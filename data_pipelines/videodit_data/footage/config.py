"""The configuration of a build: how footage is cut, which clips are dropped, and how kept clips are stored."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from videodit_data.footage.analyse import AnalysisConfig
from videodit_data.footage.describe import CaptionerConfig
from videodit_data.footage.filters import Filter
from videodit_data.footage.shards import ShardConfig
from videodit_data.video.isolate import Limits
from videodit_data.video.transcode import Recode

_SECONDS = (1e-3, 1e6)
# The least and the most of every number, far beyond any build: what lies outside is a slip, or exhausts a machine.
RANGES: dict[str, tuple[float, float]] = {
    "analysis.shots.threshold": (0, 1e6),
    "analysis.shots.flash_seconds": (0, 1e6),
    "analysis.shots.pixels": (1024, 2**28),
    "analysis.clips.min_seconds": _SECONDS,
    "analysis.clips.max_seconds": _SECONDS,
    "analysis.measures.looks": (1e-3, 1e6),
    "analysis.measures.pixels": (4096, 2**28),
    "analysis.measures.step": _SECONDS,
    "analysis.measures.text_seconds": _SECONDS,
    "duplicates.bits": (0, 31),
    "duplicates.most": (1, 2**24),
    "captioner.per_minute": (1e-3, 1e6),
    "captioner.concurrency": (1, 4096),
    "captioner.frames": (1, 2**24),
    "captioner.side": (1, 2**24),
    "recode.crf": (0, 51),
    "recode.gop": (1, 2**24),
    "recode.short_side": (2, 2**24),
    "shards.clips": (1, 2**31 - 1),
    "shards.bytes": (1, 2**50),
    "limits.seconds": _SECONDS,
    "limits.mebibytes": (1, 2**24),
    "limits.pixels": (1, 2**32),
    "limits.seconds_per_mebibyte": (0, 1e6),
    "pictures": (0, 10_000),
}
_THRESHOLD = (-1e12, 1e12)  # of filters


@dataclass(frozen=True)
class Filters:
    """A filter for each measure (`analysis_result.MEASURES`), in the order of the funnel; none drops any by default."""

    luminance: Filter = field(default_factory=Filter)
    contrast: Filter = field(default_factory=Filter)
    bars: Filter = field(default_factory=Filter)
    static: Filter = field(default_factory=Filter)
    slideshow: Filter = field(default_factory=Filter)
    motion: Filter = field(default_factory=Filter)
    sharpness: Filter = field(default_factory=Filter)
    text: Filter = field(default_factory=Filter)
    loudness: Filter = field(default_factory=Filter)


@dataclass(frozen=True)
class DuplicateConfig:
    """Settings of the search for near-duplicates.

    Attributes:
        drop: whether any are.
        bits: clips whose fingerprints differ in so many of 64 bits, on average over their frames, are near-duplicates;
            of those just so far apart nine in ten are found, of nearer ones more (`fingerprint.banding`).
        most: of clips filed under one band each is compared with so many first ones.
    """

    drop: bool = True
    bits: int = 8
    most: int = 256


@dataclass(frozen=True)
class CaptionConfig:
    """Settings of the sources of captions.

    Attributes:
        table: a .jsonl, .csv or .tsv with the columns file and caption, perhaps clip, or start and stop in seconds; if
            None, that of the footage's folder or the one above it. Files of the same name come before it.
        required: whether clips without a caption are dropped, or else kept with an empty one.
    """

    table: str | None = None
    required: bool = True


@dataclass(frozen=True)
class BuildConfig:
    """Settings of a build from raw footage to shards.

    Attributes:
        analysis: how footage is divided into clips and measured.
        filters: thresholds, in the order of the funnel.
        captioner: a model that captions what is kept; with one, clips need no captions from files.
        recode: how clips are encoded anew; None where every clip is a whole file, which is kept as it is.
        source, licence: where captions do not say; the folder's name if source is None.
        limits: of the process that decodes one file.
        pictures: of how many clips a reason thumbnails are kept.
    """

    kind: Literal["footage"] = "footage"
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    filters: Filters = field(default_factory=Filters)
    duplicates: DuplicateConfig = field(default_factory=DuplicateConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    recode: Recode | None = field(default_factory=Recode)
    shards: ShardConfig = field(default_factory=ShardConfig)
    source: str | None = None
    licence: str = "unknown"
    limits: Limits = field(default_factory=lambda: Limits(seconds=3600.0, seconds_per_mebibyte=20.0))
    pictures: int = 12

    def __post_init__(self) -> None:
        for path, value in numbers_of(self):
            least, most = RANGES.get(path, _THRESHOLD)
            if not least <= value <= most:
                raise ValueError(f"{path} is {value!r:.80}: it must be from {least} to {most}")


def numbers_of(config: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted path and the value of every number of a configuration."""
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            yield from numbers_of(value, f"{path}{each.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path + each.name, value
