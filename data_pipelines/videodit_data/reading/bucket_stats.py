"""What a configuration will make of its data sets, before anything is read or trained: shapes, drops and waste."""

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

_BATCHES = 1000  # planned at most


@dataclass(frozen=True)
class ShapeStats:
    """One of the shapes that clips are served in.

    clips: of all data sets. tokens: of a clip. batch: clips of a batch, 0 in packed rows. kept: the share of a frame's
    pixels that is in its crop.
    """

    bucket: Bucket
    clips: int
    tokens: int
    batch: int
    kept: float


@dataclass(frozen=True)
class BucketStats:
    """What comes of a mixture.

    dropped: for each data set how many clips are not served, by reason.
    batches: of one pass through all clips. compiled: how many shapes a step is compiled for.
    real: of the tokens of those batches (or of the first thousand), the share that is of clips.
    """

    shapes: tuple[ShapeStats, ...]
    dropped: dict[str, dict[str, int]]
    clips: int
    batches: int
    compiled: int
    real: float


def compute_bucket_stats(config: ReaderConfig) -> BucketStats:
    """Plans one pass, shuffled as training is. ValueError as `ClipSource`."""
    source = ClipSource(replace(config, repeat=True), to_plan=True)
    counts: Counter[Bucket] = Counter()
    kept: dict[Bucket, list[tuple[int, float]]] = {}
    for assigned in source.assigned:
        numbers = np.bincount(assigned.of[assigned.of >= 0], minlength=len(assigned.buckets))
        for bucket, number, share in zip(assigned.buckets, numbers.tolist(), assigned.kept, strict=True):
            counts[bucket] += number
            kept.setdefault(bucket, []).append((number, share))
    shapes = tuple(
        ShapeStats(
            bucket,
            counts[bucket],
            source.cost(bucket),
            0 if config.packing else source.batch(bucket),
            sum(n * share for n, share in kept[bucket]) / counts[bucket],
        )
        for bucket in source.shapes
    )
    clips = sum(counts.values())
    batches, real = _plan(source, clips)
    dropped = {each.path: assigned.dropped for each, assigned in zip(source.sets, source.assigned, strict=True)}
    return BucketStats(shapes, dropped, clips, batches, 1 if config.packing else len(shapes), real)


def latent_stride(paths: Sequence[str]) -> tuple[int | None, int] | None:
    """Frames and pixels of a latent position, as the latents of data sets have them; None where none holds latents.

    Frames are None where all clips are images. ValueError when data sets were coded by VAEs of different strides.
    """
    found: dict[str, tuple[int | None, int]] = {}
    for each in map(open_dataset, paths):
        if each.manifest.content == "latent":
            frames = [clip[0] for clip in each.clips]
            record = each.records[frames.index(max(frames))]
            t, y, _, _ = record.latent.shape
            found[each.path] = (record.frames - 1) // (t - 1) if t > 1 else None, record.height // y
    times, spaces = {time for time, _ in found.values()} - {None}, {space for _, space in found.values()}
    if max(len(times), len(spaces)) > 1:
        told = ", ".join(f"{path} by {time or 'any'} {space}" for path, (time, space) in found.items())
        raise ValueError(f"These latents are of VAEs with different strides, which no run reads together: {told}.")
    return (min(times, default=None), spaces.pop()) if found else None


def _plan(source: ClipSource, clips: int) -> tuple[int, float]:
    """Batches of a pass, and the share of their tokens that is of clips."""
    config, plan, served, used, batches = source.config, source.plan(), 0, 0, 0
    while served < clips and batches < _BATCHES:
        places = [place for row in next(plan) for place in row]
        served += len(places)
        used += sum(source.cost(source.shape(place)) for place in places)
        batches += 1
    room = config.rows * config.packing.length if config.packing else config.shapes.tokens
    return round(batches * clips / served), used / (batches * room)


def print_bucket_stats(config: ReaderConfig, console: Console) -> None:
    """Prints a `compute_bucket_stats` as a table and a few lines."""
    found = compute_bucket_stats(config)
    columns = ("clips a batch", "tokens used") if not config.packing else ()
    title = "Shapes, frames x height x width; of a clip's frames, the share kept"
    table = Table("shape", "clips", "tokens", *columns, "kept", title=title, title_justify="left")
    for shape in found.shapes:
        row = [str(shape.bucket), str(shape.clips), str(shape.tokens)]
        if not config.packing:
            row += [str(shape.batch), f"{shape.batch * shape.tokens / config.shapes.tokens:.1%}"]
        table.add_row(*row, f"{shape.kept:.1%}")
    console.print(table)
    for path, reasons in found.dropped.items():
        for reason, count in reasons.items():
            console.print(f"{path}: {count} clips are {reason} and not served", highlight=False)
    if not any(found.dropped.values()):
        console.print("every clip is served", highlight=False)
    console.print(
        f"{found.clips} clips, about {found.batches} batches a pass; {found.real:.1%} of their tokens are of clips; "
        f"{found.compiled} shape{'s' * (found.compiled != 1)} to compile a step for",
        highlight=False,
    )
