"""Near-duplicates within and across sources: fingerprints that share a band are compared; the first of a group stays.

Banded locality-sensitive hashing: a clip is filed under each band of its fingerprint, and only clips under one band
meet (Indyk and Motwani 1998, doi:10.1145/276698.276876). A clip is dropped if a near-duplicate comes before it in the
order of `Candidate.rank`, whatever becomes of that one, so that the outcome does not depend on who is compared when.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from videodit_data.footage import fingerprint
from videodit_data.footage.candidates import Candidate, Spot


@dataclass(frozen=True)
class Entry:
    """A clip under one of its bands."""

    rank: tuple[int, int, str]
    fingerprint: tuple[int, ...]
    spot: Spot


class DropDuplicates(beam.PTransform):
    """A transform of candidates to a dict of collections: "passed", "dropped" (fates), and "crowded".

    Under one band, each clip is compared with the `most` first ones. "crowded" has the number of those that are no
    such first one, of every band that has them: what is a duplicate of such a clip alone may stay.
    """

    def __init__(self, bits: int, most: int = 256):
        super().__init__()
        self._bits, self._most = bits, most

    def expand(self, candidates: beam.PCollection) -> Any:
        entries = candidates | "File by band" >> beam.FlatMap(_entries, *fingerprint.banding(self._bits))
        firsts = entries | "First ones" >> beam.combiners.Top.PerKey(self._most, key=_rank, reverse=True)
        found = (
            {"firsts": firsts, "entries": entries}
            | "Meet" >> beam.CoGroupByKey()
            | "Compare" >> beam.ParDo(_Compare(self._bits)).with_outputs("crowded", main="matches")
        )
        earliest = found.matches | "Earliest" >> beam.CombinePerKey(_Earliest())
        split = (
            {"candidate": candidates | "Key by id" >> beam.Map(lambda c: (c.id, c)), "duplicate": earliest}
            | "Join" >> beam.CoGroupByKey()
            | "Split" >> beam.ParDo(_Split(self._bits)).with_outputs("dropped", main="passed")
        )
        return {"passed": split.passed, "dropped": split.dropped, "crowded": found.crowded}


def _entries(candidate: Candidate, bands: int, rows: int) -> Iterator[tuple[Any, Entry]]:
    entry = Entry(candidate.rank, candidate.clip.fingerprint, candidate.spot)
    for band in fingerprint.bands(candidate.clip.fingerprint, bands, rows):
        yield band, entry


def _rank(entry: Entry) -> tuple[int, int, str]:
    return entry.rank


class _Compare(beam.DoFn):
    def __init__(self, bits: int):
        self._bits = bits

    def process(self, element: tuple[Any, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        _, groups = element
        (firsts,), entries = groups["firsts"], 0
        for entry in groups["entries"]:
            entries += 1
            for first in firsts:
                if first.rank >= entry.rank:
                    break
                if fingerprint.distance(first.fingerprint, entry.fingerprint) <= self._bits:
                    yield entry.spot.clip, first
                    break
        if entries > len(firsts):
            yield beam.pvalue.TaggedOutput("crowded", entries - len(firsts))


class _Earliest(beam.CombineFn):
    def create_accumulator(self) -> Entry | None:
        return None

    def add_input(self, accumulator: Entry | None, entry: Entry) -> Entry:
        return entry if accumulator is None else min(accumulator, entry, key=_rank)

    def merge_accumulators(self, accumulators: Iterable[Entry | None]) -> Entry | None:
        return min((each for each in accumulators if each is not None), key=_rank, default=None)

    def extract_output(self, accumulator: Entry | None) -> Entry | None:
        return accumulator


class _Split(beam.DoFn):
    def __init__(self, bits: int):
        self._bits = bits

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        _, joined = element
        (candidate,) = joined["candidate"]
        earlier = list(joined["duplicate"])
        if not earlier:
            yield candidate
            return
        duplicate = earlier[0]
        distance = fingerprint.distance(duplicate.fingerprint, candidate.clip.fingerprint)
        yield beam.pvalue.TaggedOutput(
            "dropped",
            candidate.decided(
                "duplicates",
                "near-duplicate of another clip",
                duplicate.spot,
                measure="distance",
                value=distance,
                threshold=self._bits,
            ),
        )
