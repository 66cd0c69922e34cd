"""Statistics of buckets before anything is read or trained: shapes, dropped clips and padding of a configuration."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from videodit_data.formats import open_dataset
from videodit_data.reading.buckets import Bucket
from videodit_data.reading.clip_source import ClipSource
from videodit_data.reading.reader_config import ReaderConfig

_MAX_BATCHES = 1000  # of a plan


@dataclass(frozen=True)
class ShapeStats:
    """One of the shapes that clips are served in.

    Attributes:
        clips: of all data sets.
        tokens: of a clip.
        batch_size: clips of a batch, 0 in packed sequences.
        crop_share: share of the clips' pixels that is inside the crop.
    """

    bucket: Bucket
    clips: int
    tokens: int
    batch_size: int
    crop_share: float


@dataclass(frozen=True)
class BucketStats:
    """Statistics of the batches that a configuration makes of its data sets.

    Attributes:
        dropped: for each data set how many clips are not served, by reason.
        batches: of one pass through all clips.
        num_compiled: how many shapes a step is compiled for.
        token_utilization: of the tokens of those batches (or of the first thousand), the share that is not padding.
    """

    shapes: tuple[ShapeStats, ...]
    dropped: dict[str, dict[str, int]]
    clips: int
    batches: int
    num_compiled: int
    token_utilization: float


def compute_bucket_stats(config: ReaderConfig) -> BucketStats:
    """Plan one pass, shuffled as in training, and return its statistics. ValueError as `ClipSource`."""
    source = ClipSource(replace(config, repeat=True), plan_only=True)
    counts: Counter[Bucket] = Counter()
    crop_shares: dict[Bucket, list[tuple[int, float]]] = {}
    for assignment in source.assignments:
        numbers = np.bincount(assignment.indices[assignment.indices >= 0], minlength=len(assignment.buckets))
        for bucket, number, share in zip(assignment.buckets, numbers.tolist(), assignment.crop_shares, strict=True):
            counts[bucket] += number
            crop_shares.setdefault(bucket, []).append((number, share))
    shapes = tuple(
        ShapeStats(
            bucket,
            counts[bucket],
            source.count_tokens(bucket),
            0 if config.packing else source.batch_size(bucket),
            sum(n * share for n, share in crop_shares[bucket]) / counts[bucket],
        )
        for bucket in source.buckets
    )
    clips = sum(counts.values())
    batches, utilization = _plan(source, clips)
    dropped = {each.path: of.dropped for each, of in zip(source.datasets, source.assignments, strict=True)}
    return BucketStats(shapes, dropped, clips, batches, 1 if config.packing else len(shapes), utilization)


def latent_stride(paths: Sequence[str]) -> tuple[int | None, int] | None:
    """Return the frames and pixels of a latent position, from the latents of data sets.

    Returns:
        None where no data set holds latents; frames are None where all clips are images.

    Raises:
        ValueError: when data sets were encoded by VAEs of different strides.
    """
    strides: dict[str, tuple[int | None, int]] = {}
    for each in map(open_dataset, paths):
        if each.manifest.content == "latent":
            frames = [clip[0] for clip in each.clips]
            record = each.records[frames.index(max(frames))]
            t, y, _, _ = record.latent.shape
            strides[each.path] = (record.frames - 1) // (t - 1) if t > 1 else None, record.height // y
    times, spaces = {time for time, _ in strides.values()} - {None}, {space for _, space in strides.values()}
    if max(len(times), len(spaces)) > 1:
        listed = ", ".join(f"{path} by {time or 'any'} {space}" for path, (time, space) in strides.items())
        raise ValueError(f"These latents are of VAEs with different strides, which no run reads together: {listed}.")
    return (min(times, default=None), spaces.pop()) if strides else None


def _plan(source: ClipSource, clips: int) -> tuple[int, float]:
    """Return the batches of a pass, and the share of their tokens that is not padding."""
    config, plan, clips_served, used, batches = source.config, source.plan(), 0, 0, 0
    while clips_served < clips and batches < _MAX_BATCHES:
        positions = [position for entry in next(plan) for position in entry]
        clips_served += len(positions)
        used += sum(source.count_tokens(source.bucket(position)) for position in positions)
        batches += 1
    room = config.batch_size * config.packing.length if config.packing else config.shapes.tokens
    return round(batches * clips / clips_served), used / (batches * room)


def print_bucket_stats(config: ReaderConfig, console: Console) -> None:
    """Print the statistics as a table and a few lines."""
    stats = compute_bucket_stats(config)
    columns = ("clips per batch", "tokens used") if not config.packing else ()
    title = "Shapes, frames x height x width; of a clip's frames, the share inside the crop"
    table = Table("shape", "clips", "tokens", *columns, "cropped to", title=title, title_justify="left")
    for shape in stats.shapes:
        row = [str(shape.bucket), str(shape.clips), str(shape.tokens)]
        if not config.packing:
            row += [str(shape.batch_size), f"{shape.batch_size * shape.tokens / config.shapes.tokens:.1%}"]
        table.add_row(*row, f"{shape.crop_share:.1%}")
    console.print(table)
    for path, reasons in stats.dropped.items():
        for reason, count in reasons.items():
            console.print(f"{path}: {count} clips are {reason} and not served", highlight=False)
    if not any(stats.dropped.values()):
        console.print("every clip is served", highlight=False)
    console.print(
        f"{stats.clips} clips, about {stats.batches} batches per pass; {stats.token_utilization:.1%} of their tokens "
        f"are of clips; {stats.num_compiled} shape{'s' * (stats.num_compiled != 1)} to compile a step for",
        highlight=False,
    )
