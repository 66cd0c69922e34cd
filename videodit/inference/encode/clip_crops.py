"""The parts of clips that are encoded: which windows, at which sizes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from videodit_data.reading.buckets import Bucket, Buckets, OneSize, TokenSize
from videodit_data.reading.clip_window import Window, choose_windows
from videodit_data.storage.dataset import Dataset

from videodit.config.run import VAERun
from videodit.inference.encode.bucket_options import BucketOptions
from videodit.provenance import JSON


@dataclass(frozen=True)
class CropConfig:
    """The crops that are encoded of every clip.

    Attributes:
        buckets: the best of these buckets, or none if the clip fits none. None: a single size and rate, those that the
            autoencoder was trained at.
        every_resolution: encode the clip at every resolution of the buckets that it fits, not only at the best.
        crops: the number of different windows at each size, if the clip has as many; the first one starts with the
            clip and is centered.
    """

    buckets: BucketOptions | None = None
    every_resolution: bool = False
    crops: int = 1

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise ValueError(f"{self.crops} crops per clip: it must be at least 1")
        resolutions = (self.buckets and self.buckets.resolutions) or ()
        if self.every_resolution and len(resolutions) < 2:
            raise ValueError("encoding at every resolution needs several resolutions")

    def choose_fps(self, run: VAERun) -> float:
        """Return the frames per second of crops: those of the buckets, or of the autoencoder's training."""
        fps = self.buckets and self.buckets.fps
        return run.data.fps if fps is None else fps

    def to_json(self) -> dict[str, JSON]:
        """Return the fields, with the names that manifests have."""
        buckets = self.buckets and self.buckets.to_json()
        return {"buckets": buckets, "every_side": self.every_resolution, "crops": self.crops}


@dataclass(frozen=True)
class ClipCrop:
    """A window of a clip at a size, which becomes a record of its own.

    Attributes:
        clip: the index of the clip.
        bucket: the size.
        suffix: what the id of the record has after the id of the clip.
    """

    clip: int
    bucket: Bucket
    window: Window
    suffix: str = ""


def select_crops(
    data: Dataset, run: VAERun, config: CropConfig, vae_dir: Path
) -> tuple[list[ClipCrop], dict[int, str]]:
    """Return the crops of all clips, and for clips without a crop the reason, by index.

    Args:
        run: of the autoencoder; vae_dir: its directory, for messages.

    Raises:
        ValueError: if a clip is too short for the single size, or no clip fits the buckets.
    """
    buckets = _single_size(data, run, vae_dir) if config.buckets is None else _choose_buckets(data, run, config)
    fps = config.choose_fps(run)
    crops, dropped = [], {}
    for index, (clip, chosen) in enumerate(zip(data.clips, buckets, strict=True)):
        if isinstance(chosen, str):
            dropped[index] = chosen
            continue
        for bucket in chosen:
            size = bucket.frames, fps, bucket.height, bucket.width
            for number, window in enumerate(choose_windows(clip, size, config.crops, index)):
                suffix = f"/{bucket.width}x{bucket.height}" * config.every_resolution
                suffix += f"/{number}" * (config.crops > 1)
                crops.append(ClipCrop(index, bucket, window, suffix))
    if not crops:
        raise ValueError(f"{data.path}: none of its {len(buckets)} clips fits the buckets")
    return crops, dropped


def _single_size(data: Dataset, run: VAERun, vae_dir: Path) -> list[list[Bucket]]:
    size = OneSize(run.data.frames, run.data.height, run.data.width, run.data.fps)
    short = sum(isinstance(size.choose(*clip), str) for clip in data.clips)
    if short:
        raise ValueError(
            f"{data.path}: {short} of its {data.manifest.clips} clips are shorter than {size.frames} frames at "
            f"{size.fps:g} fps, the clips that {vae_dir} encodes"
        )
    return [[size.bucket]] * data.manifest.clips


def _choose_buckets(data: Dataset, run: VAERun, config: CropConfig) -> Sequence[list[Bucket] | str]:
    """Return for every clip its buckets, or why it fits none; sizes are multiples of a patch of 2 x 2 latents."""
    token = TokenSize(run.model.time_stride, 2 * run.model.space_stride)
    buckets = config.buckets.apply(Buckets(fps=run.data.fps, token=token, tokens=2**62))
    if config.every_resolution:
        candidates = [replace(buckets, resolutions=(resolution,)) for resolution in buckets.resolutions]
    else:
        candidates = [buckets]

    @functools.cache
    def choose(frames: int, fps: float, height: int, width: int) -> list[Bucket] | str:
        best = buckets.choose(frames, fps, height, width)
        if isinstance(best, str):
            return best
        chosen = (each.choose(frames, fps, height, width) for each in candidates)
        return sorted({bucket for bucket in chosen if isinstance(bucket, Bucket)})

    return [choose(*clip) for clip in data.clips]
