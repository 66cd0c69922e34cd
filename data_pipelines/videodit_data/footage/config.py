"""The configuration of a build: how footage is cut, which clips are dropped, and how kept clips are stored."""

from dataclasses import dataclass, field
from typing import Literal

from videodit_data.footage.analyse import AnalysisConfig
from videodit_data.footage.describe import CaptionerConfig
from videodit_data.footage.filters import Filter
from videodit_data.footage.shards import ShardConfig
from videodit_data.video.isolate import Limits
from videodit_data.video.transcode import Recode


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

    def __post_init__(self) -> None:
        if not 0 <= self.bits < 32 or self.most < 1:
            raise ValueError(f"Near-duplicates need 0 to 31 bits and at least one to compare with, not {self}.")


@dataclass(frozen=True)
class CaptionConfig:
    """Settings of the sources of captions.

    Attributes:
        table: a captions.jsonl or .csv with the columns file and caption, perhaps clip, or start and stop in seconds;
            if None, that of the footage's folder or the one above it. Files of the same name come before it.
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
        if self.pictures < 0:
            raise ValueError(f"There are no {self.pictures} pictures a reason.")
