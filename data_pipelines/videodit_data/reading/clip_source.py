"""The clips of a configuration's data sets: which of them are served, in which shape, in which order."""

import logging

import numpy as np

from videodit_data.formats import open_dataset
from videodit_data.reading.batch import ArraySpec
from videodit_data.reading.batch_plan import BucketPlan, PackPlan, Plan
from videodit_data.reading.buckets import Bucket, Buckets, OneSize, assign
from videodit_data.reading.mixture import Mixture
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.sample import ClipShape, latents
from videodit_data.storage.records import Record


class ClipSource:
    """The data sets of a configuration, and how each of their clips is served.

    `shapes` are all buckets that have a clip; `assigned` says for each part which clip has which, and how many none.
    """

    def __init__(self, config: ReaderConfig, *, to_plan: bool = False):
        """ValueError when there is no data set, videos and latents are mixed, or no clip of a data set fits.

        to_plan: nothing is going to be read, and videos may be packed as they would be coded.
        """
        self.config, self.sets = config, [open_dataset(part.path) for part in config.parts]
        contents = {each.manifest.content for each in self.sets}
        if len(contents) > 1:
            raise ValueError("A mixture is of videos or of latents, not of both.")
        self.latent = contents == {"latent"}
        if config.packing and not (self.latent or to_plan):
            raise ValueError("Only latents are packed: code the clips first (videodit data encode).")
        kinds = {each.records[0].latent.dtype for each in self.sets} if self.latent else set()
        if len(kinds) > 1:
            raise ValueError(f"A mixture's latents are all of one type, not of {' and '.join(sorted(kinds))}.")
        choose = config.shapes.choose_coded if self.latent else config.shapes.choose
        self.assigned = [assign(choose, each.clips) for each in self.sets]
        self.shapes = sorted({bucket for assigned in self.assigned for bucket in assigned.buckets})
        self._place = {bucket: number for number, bucket in enumerate(self.shapes)}
        for each, assigned in zip(self.sets, self.assigned, strict=True):
            if not (assigned.of >= 0).any():
                reasons = ", ".join(f"{count} {reason}" for reason, count in assigned.dropped.items())
                raise ValueError(f"{each.path}: no clip fits {_named(config.shapes)}: {reasons}.")
            for reason, count in assigned.dropped.items():
                message = "%s: %d of %d clips are %s for %s and are not served."
                counted = each.path, count, len(assigned.of), reason, _named(config.shapes)
                logging.getLogger(__name__).warning(message, *counted)
        self.mixture = Mixture(
            [np.flatnonzero(assigned.of >= 0) for assigned in self.assigned],
            [part.weight for part in config.parts],
            seed=config.seed,
            shuffle=config.shuffle,
            repeat=config.repeat,
        )

    def shape(self, place: int) -> Bucket:
        """Of the clip at a place of the mixture."""
        part, number = self.mixture[place]
        assigned = self.assigned[part]
        return assigned.buckets[assigned.of[number]]

    def record(self, place: int) -> Record:
        """The clip at a place of the mixture."""
        part, number = self.mixture[place]
        return self.sets[part].records[number]

    def cost(self, bucket: Bucket) -> int:
        """Tokens of a clip of a bucket; one size for all costs one."""
        shapes = self.config.shapes
        return 1 if isinstance(shapes, OneSize) else shapes.token.count(bucket.frames, bucket.height, bucket.width)

    def batch(self, bucket: Bucket) -> int:
        """Clips of a bucket's batch; ValueError when there is no room for as many as must share it."""
        shapes, multiple = self.config.shapes, self.config.multiple
        if not isinstance(shapes, Buckets):
            return self.config.rows
        size = shapes.batch(bucket) // multiple * multiple
        if not size:
            raise ValueError(
                f"A batch of {shapes.tokens} tokens has no room for {multiple} clip{'s' * (multiple > 1)} of {bucket}, "
                f"of {self.cost(bucket)} each."
            )
        return size

    def plan(self) -> Plan:
        """A fresh plan of all batches."""
        config, length = self.config, self.mixture.length
        if config.packing:
            return PackPlan(lambda place: self.cost(self.shape(place)), config.packing, config.rows, length)
        sizes = [self.batch(bucket) for bucket in self.shapes]
        return BucketPlan(lambda place: self._place[self.shape(place)], sizes.__getitem__, length)

    def fps(self, record: Record) -> float:
        """Frames a second that a clip is served at; latents keep their own."""
        return record.fps if self.latent else self.config.shapes.fps

    def moments(self, bucket: Bucket) -> ArraySpec:
        """Shape and type of the moments of latents of a bucket, as the first of them has them."""
        for data, assigned in zip(self.sets, self.assigned, strict=True):
            if bucket in assigned.buckets:
                first = data.records[int(np.argmax(assigned.of == assigned.buckets.index(bucket)))]
                mean, _ = latents(first, ClipShape(bucket.frames, bucket.height, bucket.width, first.fps))
                return ArraySpec(mean.shape, mean.dtype)
        raise KeyError(bucket)


def _named(shapes: OneSize | Buckets | Packing) -> str:
    if isinstance(shapes, OneSize):
        return f"{shapes.bucket} at {shapes.fps:g} a second"
    return "the buckets" if isinstance(shapes, Buckets) else "the rows"
