"""The clips of a reader's data sets: which of them are served, in which shape, in which order."""

import logging

import numpy as np

from videodit_data.formats import open_dataset
from videodit_data.reading.batch import ArraySpec
from videodit_data.reading.batch_plan import BucketPlan, PackPlan, Plan
from videodit_data.reading.buckets import Bucket, Buckets, OneSize, assign_buckets
from videodit_data.reading.mixture import Mixture
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.sample import ClipShape, read_latents
from videodit_data.storage.records import Record


class ClipSource:
    """The data sets of a configuration, and how each of their clips is served.

    Attributes:
        datasets: the data sets, open.
        assignments: for each data set which clip has which bucket, and how many none.
        buckets: all buckets that have a clip, in order.
        latent: whether the data sets hold latents.
        mixture: the sequence of clips.

    Args:
        plan_only: nothing is going to be read; videos may then be packed as if they were encoded.

    Raises:
        ValueError: when there is no data set, videos and latents are mixed, or no clip of a data set fits.
    """

    def __init__(self, config: ReaderConfig, *, plan_only: bool = False):
        self.config = config
        self.datasets = [open_dataset(each.path) for each in config.datasets]
        contents = {each.manifest.content for each in self.datasets}
        if len(contents) > 1:
            raise ValueError("A mixture is of videos or of latents, not of both.")
        self.latent = contents == {"latent"}
        if config.packing and not (self.latent or plan_only):
            raise ValueError("Only latents are packed: encode the clips first (videodit data encode).")
        dtypes = {each.records[0].latent.dtype for each in self.datasets} if self.latent else set()
        if len(dtypes) > 1:
            raise ValueError(f"A mixture's latents are all of one type, not of {' and '.join(sorted(dtypes))}.")
        choose = config.shapes.choose_encoded if self.latent else config.shapes.choose
        self.assignments = [assign_buckets(choose, each.clips) for each in self.datasets]
        self.buckets = sorted({bucket for assignment in self.assignments for bucket in assignment.buckets})
        self._index_of = {bucket: index for index, bucket in enumerate(self.buckets)}
        self._check_dropped()
        self.mixture = Mixture(
            [np.flatnonzero(assignment.indices >= 0) for assignment in self.assignments],
            [each.weight for each in config.datasets],
            seed=config.seed,
            shuffle=config.shuffle,
            repeat=config.repeat,
        )

    def _check_dropped(self) -> None:
        """Log how many clips are not served. ValueError when a data set has no other."""
        for dataset, assignment in zip(self.datasets, self.assignments, strict=True):
            if not assignment.num_served:
                reasons = ", ".join(f"{count} {reason}" for reason, count in assignment.dropped.items())
                raise ValueError(f"{dataset.path}: no clip fits {_describe(self.config.shapes)}: {reasons}.")
            for reason, count in assignment.dropped.items():
                message = "%s: %d of %d clips are %s for %s and are not served."
                values = dataset.path, count, len(assignment.indices), reason, _describe(self.config.shapes)
                logging.getLogger(__name__).warning(message, *values)

    def bucket(self, position: int) -> Bucket:
        """Return the bucket of the clip at a position of the mixture."""
        dataset, index = self.mixture[position]
        assignment = self.assignments[dataset]
        return assignment.buckets[assignment.indices[index]]

    def record(self, position: int) -> Record:
        """Return the clip at a position of the mixture."""
        dataset, index = self.mixture[position]
        return self.datasets[dataset].records[index]

    def first_record(self, bucket: Bucket) -> Record:
        """Return the first clip that is served in a bucket."""
        for dataset, assignment in zip(self.datasets, self.assignments, strict=True):
            if bucket in assignment.buckets:
                return dataset.records[int(np.argmax(assignment.indices == assignment.buckets.index(bucket)))]
        raise KeyError(bucket)

    def count_tokens(self, bucket: Bucket) -> int:
        """Return the tokens of a clip of a bucket; where all clips have one size, each counts as one."""
        shapes = self.config.shapes
        return 1 if isinstance(shapes, OneSize) else shapes.token.count(bucket.frames, bucket.height, bucket.width)

    def batch_size(self, bucket: Bucket) -> int:
        """Return the number of clips in a bucket's batch.

        Raises:
            ValueError: when a batch has no room for as many clips as must share it.
        """
        shapes, multiple = self.config.shapes, self.config.multiple
        if not isinstance(shapes, Buckets):
            return self.config.batch_size
        size = shapes.batch_size(bucket) // multiple * multiple
        if not size:
            raise ValueError(
                f"A batch of {shapes.tokens} tokens has no room for {multiple} clip{'s' * (multiple > 1)} of {bucket}, "
                f"of {self.count_tokens(bucket)} each."
            )
        return size

    def plan(self) -> Plan:
        """Return a plan of all batches, at its start."""
        config, length = self.config, self.mixture.length
        if config.packing:
            return PackPlan(lambda p: self.count_tokens(self.bucket(p)), config.packing, config.batch_size, length)
        sizes = [self.batch_size(bucket) for bucket in self.buckets]
        return BucketPlan(lambda position: self._index_of[self.bucket(position)], sizes.__getitem__, length)

    def fps(self, record: Record) -> float:
        """Return the frames per second that a clip is served at; latents keep their own."""
        return record.fps if self.latent else self.config.shapes.fps

    def latent_spec(self, bucket: Bucket) -> ArraySpec:
        """Return shape and dtype of a bucket's latents, as the first of them has them."""
        first = self.first_record(bucket)
        mean, _ = read_latents(first, ClipShape(bucket.frames, bucket.height, bucket.width, first.fps))
        return ArraySpec(mean.shape, mean.dtype)


def _describe(shapes: OneSize | Buckets | Packing) -> str:
    if isinstance(shapes, OneSize):
        return f"{shapes.bucket} at {shapes.fps:g} per second"
    return "the buckets" if isinstance(shapes, Buckets) else "the packed sequences"
