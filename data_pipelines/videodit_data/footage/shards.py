"""Shards of even size from kept clips, in an order that mixes sources and depends only on the clips' ids.

Clips are ordered by the hash of their id. They are never sorted in one memory: each part, of one prefix of the hash, is
sorted by itself, and the counts of the parts give the first position of each.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam

from videodit_data.boundary.typed_json import parse_json
from videodit_data.footage import file_system
from videodit_data.footage.clip_record import record_of
from videodit_data.footage.decisions import digest
from videodit_data.footage.stages import Staged
from videodit_data.storage.manifest import Described, describe
from videodit_data.storage.records import shard_name, write_shard

NAME = "clips"
_DIGITS = 3  # of a hash in base 16: the parts in which clips are sorted


@dataclass(frozen=True)
class ShardConfig:
    """Limits of a shard: clips, and bytes of their videos, no bound if None; sizes differ by one clip at most."""

    clips: int = 1024
    bytes: int | None = None

    def __post_init__(self) -> None:
        if self.clips < 1 or (self.bytes is not None and self.bytes < 1):
            raise ValueError(f"A shard holds at least one clip and one byte, not {self.clips} and {self.bytes}.")

    def count(self, clips: int, size: int) -> int:
        """Return the number of shards of so many clips and bytes, as if all clips had the same size."""
        by_bytes = 1 if self.bytes is None else -(-size // self.bytes)
        return min(max(-(-clips // self.clips), by_bytes, 1), max(clips, 1))


class WriteShards(beam.PTransform):
    """A transform of staged clips to descriptions of shards, one per shard; existing shards are kept."""

    def __init__(self, config: ShardConfig, folder: str, notes: str):
        super().__init__()
        self._config, self._folder, self._notes = config, folder, notes

    def expand(self, staged: beam.PCollection) -> beam.PCollection:
        parts = staged | "Part" >> beam.Map(lambda clip: (digest(clip.candidate.id)[:_DIGITS], clip))
        sizes = parts | "Size" >> beam.Map(lambda part: (part[0], (1, part[1].bytes)))
        offsets = sizes | "Count" >> beam.CombinePerKey(_sum_pairs) | "All counts" >> beam.combiners.ToDict()
        return (
            parts
            | "Gather part" >> beam.GroupByKey()
            | "Place" >> beam.FlatMap(_assign_shards, beam.pvalue.AsSingleton(offsets), self._config)
            | "Gather shard" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._folder, self._notes)
        )


def _sum_pairs(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    clips, size = 0, 0
    for one, bytes_ in pairs:
        clips, size = clips + one, size + bytes_
    return clips, size


def _assign_shards(
    part: tuple[str, Iterable[Staged]], counts: Mapping[str, tuple[int, int]], config: ShardConfig
) -> Iterator[tuple[tuple[int, int], tuple[int, Staged]]]:
    """Yield the clips of a part with their shard, the number of shards, and their position among all clips."""
    total, size = _sum_pairs(counts.values())
    shards = config.count(total, size)
    first = sum(clips for prefix, (clips, _) in counts.items() if prefix < part[0])
    for position, clip in enumerate(sorted(part[1], key=lambda clip: digest(clip.candidate.id)), first):
        yield (shard_of(position, total, shards), shards), (position, clip)


def shard_of(position: int, total: int, shards: int) -> int:
    """Return which of the `even_ranges` of `total` clips a position lies in."""
    return -(-(position + 1) * shards // total) - 1


def _write(element: tuple[tuple[int, int], Iterable[tuple[int, Staged]]], folder: str, notes: str) -> str:
    """Write a shard unless it exists, and the note of its contents; returns its name."""
    (index, shards), numbered = element
    name = shard_name(NAME, index, shards)
    path, note = file_system.join(folder, name), file_system.join(notes, name + ".json")
    if not file_system.exists(path):
        clips = [clip for _, clip in sorted(numbered, key=lambda each: each[0])]
        with file_system.open_for_writing(path) as local:
            write_shard(local, map(record_of, clips))
    if not file_system.exists(note):
        with file_system.open_local(path) as local:
            described = describe(local)
        described = dataclasses.replace(described, shard=dataclasses.replace(described.shard, name=name))
        file_system.write(note, json.dumps(dataclasses.asdict(described)).encode())
    return name


def described(notes: str) -> list[Described]:
    """Return the descriptions of the shards from their notes, in order."""
    return [
        parse_json(file_system.read(path), Described, f"{path}, which can be removed")
        for _, path in sorted(file_system.files(notes).items())
    ]
