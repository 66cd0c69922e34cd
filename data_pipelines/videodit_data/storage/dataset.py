"""A data set that is open for reading: its manifest and its records."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from videodit_data.storage.manifest import Manifest, check_length, load
from videodit_data.storage.records import Record, RecordSource

ClipSize = tuple[int, float, int, int]  # frames, frames per second, height, width


@dataclass(frozen=True)
class Dataset:
    """An open data set of any format.

    Attributes:
        path: the name that it was opened by.
        manifest: shards with the size of every clip, origins, provenance.
        records: the clips by number, in the order of the manifest's shards.
        hashes: the sha256 of every file that is read, by its path, for `ShardCheck`; empty where none is known.
    """

    path: str
    manifest: Manifest
    records: Sequence[Record]
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def clips(self) -> list[ClipSize]:
        """Return the size of every clip."""
        shards = self.manifest.shards
        return [clip for s in shards for clip in zip(s.frames, s.fps, s.heights, s.widths, strict=True)]


def open_directory(path: str | os.PathLike[str]) -> Dataset:
    """Open the data set in a directory. ValueError as `manifest.load`."""
    manifest = load(path)
    records = RecordSource([Path(path) / shard.name for shard in manifest.shards])
    check_length(path, manifest, len(records))
    hashes = {str(Path(path) / shard.name): shard.sha256 for shard in (*manifest.shards, *manifest.texts)}
    return Dataset(os.fspath(path), manifest, records, hashes)
