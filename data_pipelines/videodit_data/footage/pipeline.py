"""The one pipeline from sources to shards, for any of Beam's runners.

    sources -> analyse -> judge -> duplicates -> cut -> caption -> shards

What each stage but the last does not pass on, and what comes to the end, goes to the decisions and the thumbnails.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from videodit_data.boundary.typed_json import parse_json
from videodit_data.footage import file_system
from videodit_data.footage.build_directory import NOTES
from videodit_data.footage.candidates import Candidate, Fate, Spot
from videodit_data.footage.config import BuildConfig
from videodit_data.footage.decisions import FOLDER, THUMBNAILS, Decision, digest, to_parquet
from videodit_data.footage.describe import Caption
from videodit_data.footage.duplicates import DropDuplicates
from videodit_data.footage.filters import judge
from videodit_data.footage.shards import WriteShards
from videodit_data.footage.sources import Source
from videodit_data.footage.stages import Analyze, Cut, Show

SOURCES, UNUSABLE = "sources.jsonl", "unusable.jsonl"
_CLIPS_PER_WORKER = 16  # clips of a source that are cut by one worker
_SOURCES_A_PART = 1024  # of the table of decisions


@dataclasses.dataclass(frozen=True)
class Plan:
    """The input of the pipeline: the configuration, the partial directory with its lists, the folder of analyses."""

    config: BuildConfig
    directory: str
    sources: int
    analyses: str

    def folder(self, name: str) -> str:
        """Return a folder of the partial directory."""
        return file_system.join(self.directory, name)


def assemble(pipeline: beam.Pipeline, plan: Plan) -> None:
    """Add all stages to a pipeline."""
    config = plan.config
    sources = pipeline | "Sources" >> _Lines(plan.folder(SOURCES)) | "Parse" >> beam.Map(Source.from_json)
    analyzed = (
        sources
        | "Spread" >> beam.Reshuffle()
        | "Analyse"
        >> beam.ParDo(Analyze(config.analysis, config.limits, plan.analyses)).with_outputs("decided", main="clips")
    )
    judged = analyzed.clips | "Judge" >> beam.ParDo(Judge(config)).with_outputs("decided", main="passed")
    unique = _without_duplicates(judged.passed, config)
    cut_clips = (
        unique["passed"]
        | "Key by part of a source" >> beam.Map(_part_of_source)
        | "Gather" >> beam.GroupByKey()
        | "Cut"
        >> beam.ParDo(Cut(config.recode, config.limits, plan.folder("clips"))).with_outputs("decided", main="kept")
    )
    captioned = _captioned(cut_clips.kept, plan)
    captioned["passed"] | "Shards" >> WriteShards(config.shards, plan.directory, plan.folder(NOTES))
    unusable = pipeline | "Unusable" >> _Lines(plan.folder(UNUSABLE)) | "Unusable fates" >> beam.Map(_unusable)
    kept_fates = captioned["passed"] | "Kept" >> beam.Map(lambda staged: staged.candidate.decided("kept"))
    dropped = (analyzed.decided, judged.decided, unique["dropped"], cut_clips.decided, captioned["decided"])
    fates = (unusable, *dropped, kept_fates) | beam.Flatten()
    fates | "Decisions" >> WriteDecisions(plan)
    fates | "Thumbnails" >> WriteThumbnails(plan)
    _note(unique["crowded"], plan.folder("notes.json"))


class _Lines(beam.PTransform):
    """A transform that reads the lines of a file."""

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def expand(self, pipeline: beam.pvalue.PBegin) -> beam.PCollection:
        return (
            pipeline
            | beam.Create([self._path])
            | beam.FlatMap(lambda path: file_system.read(path).decode().split("\n"))
            | beam.Filter(bool)
        )


def _unusable(line: str) -> Fate:
    name, reason = parse_json(line, tuple[str, str], "an unusable file of the build")
    with_detail = reason.startswith(("may not be read", "an odd row"))
    kind, _, detail = reason.partition(" (") if with_detail else (reason, "", "")
    return Fate(Decision(name, "match", kind, detail=detail.removesuffix(")") or None))


class Judge(beam.DoFn):
    """A function that yields candidates that pass all filters and have captions; tagged "decided": the others."""

    def __init__(self, config: BuildConfig):
        self._config = config

    def process(self, candidate: Candidate) -> Iterator[Any]:
        fate = self._fate(candidate)
        yield candidate if fate is None else beam.pvalue.TaggedOutput("decided", fate)

    def _fate(self, candidate: Candidate) -> Fate | None:
        if self._config.recode is None and candidate.clip.frames != candidate.whole:
            return candidate.decided("split", "part of a file, and clips are not coded anew")
        verdict = judge(candidate.clip.measures, self._config.filters)
        if verdict is not None:
            return candidate.decided("filter", **dataclasses.asdict(verdict))
        needs_caption = self._config.captions.required and self._config.captioner.use is None
        if needs_caption and not candidate.captions.texts:
            return candidate.decided("captions", "no caption")
        return None


def _without_duplicates(candidates: beam.PCollection, config: BuildConfig) -> dict[str, beam.PCollection]:
    if config.duplicates.drop:
        return candidates | "Duplicates" >> DropDuplicates(config.duplicates.bits, config.duplicates.most)
    nothing = candidates | "No duplicates" >> beam.Filter(lambda candidate: False)
    return {"passed": candidates, "dropped": nothing, "crowded": nothing}


def _captioned(staged: beam.PCollection, plan: Plan) -> dict[str, beam.PCollection]:
    if plan.config.captioner.use is not None:
        return staged | "Captions" >> Caption(plan.config.captioner, plan.config.limits, plan.folder("captions"))
    return {"passed": staged, "decided": staged | "No captioner" >> beam.Filter(lambda clip: False)}


def _part_of_source(candidate: Candidate) -> tuple[str, Candidate]:
    """Return a candidate with its key: nearby clips go to one worker, those of a long source to several."""
    length = max(1, candidate.clip.frames)
    return (
        f"{candidate.spot.hash} {candidate.spot.name} {candidate.clip.start // (length * _CLIPS_PER_WORKER)}",
        candidate,
    )


class WriteDecisions(beam.PTransform):
    """A transform that writes fates to the table of decisions; all rows of a source are in one part."""

    def __init__(self, plan: Plan):
        super().__init__()
        self._folder, self._parts = plan.folder(FOLDER), max(1, -(-plan.sources // _SOURCES_A_PART))

    def expand(self, fates: beam.PCollection) -> beam.PCollection:
        decisions = fates | beam.Map(lambda fate: fate.decision)
        measures = (
            decisions
            | "Measures" >> beam.FlatMap(lambda decision: list(decision.measures))
            | beam.Distinct()
            | beam.combiners.ToList()
        )
        parts = self._parts
        return (
            decisions
            | "Part" >> beam.Map(lambda decision: (int(digest(decision.source)[:8], 16) % parts, decision))
            | beam.GroupByKey()
            | "Write" >> beam.Map(_write_part, beam.pvalue.AsSingleton(measures), self._folder, parts)
        )


def _write_part(part: tuple[int, Iterable[Decision]], measures: list[str], folder: str, parts: int) -> int:
    path = file_system.join(folder, f"part-{part[0]:05d}-of-{parts:05d}.parquet")
    file_system.write(path, to_parquet(part[1], sorted(measures)))
    return part[0]


class WriteThumbnails(beam.PTransform):
    """A transform that writes thumbnails of a few clips per reason, the first by hash, and of their duplicates."""

    def __init__(self, plan: Plan):
        super().__init__()
        self._config, self._folder = plan.config, plan.folder(THUMBNAILS)

    def expand(self, fates: beam.PCollection) -> beam.PCollection:
        examples = (
            fates
            | beam.Filter(lambda fate: fate.spot is not None)
            | "By reason" >> beam.Map(lambda fate: ((fate.decision.stage, fate.decision.reason), fate))
            | beam.combiners.Top.PerKey(self._config.pictures, key=_hash_of, reverse=True)
        )
        return (
            examples
            | "Spots" >> beam.FlatMap(_spots)
            | "Once each" >> beam.GroupByKey()
            | "Show" >> beam.ParDo(Show(self._config.limits, self._folder))
        )


def _hash_of(fate: Fate) -> str:
    return digest(fate.spot.clip)


def _spots(group: tuple[Any, list[Fate]]) -> Iterator[tuple[str, Spot]]:
    for fate in group[1]:
        for spot in filter(None, (fate.spot, fate.duplicate)):
            yield spot.clip, spot


def _note(crowded: beam.PCollection, path: str) -> None:
    """Write the number of clips that were not compared with all clips that share a band with them."""
    (
        crowded
        | "Not compared" >> beam.CombineGlobally(sum)
        | "Note" >> beam.Map(lambda count: file_system.write(path, json.dumps({"crowded": int(count)}).encode()))
    )
