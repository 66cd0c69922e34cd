"""The stages of the pipeline that decode: they analyse each source, cut each kept clip, and write some thumbnails.

Results are written atomically to the partial directory, each by the hash of its input, and reused on resuming.
"""

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import apache_beam as beam

from videodit_data.boundary.typed_json import Count, Rate, Sha256, Size, convert, parse_json
from videodit_data.footage import file_system
from videodit_data.footage.analyse import MADE_BY, AnalysisConfig
from videodit_data.footage.analysis_result import Analysis
from videodit_data.footage.candidates import Candidate, Fate, Spot, clip_id
from videodit_data.footage.decisions import Decision, thumbnail_name
from videodit_data.footage.sources import Source
from videodit_data.video import VideoError
from videodit_data.video.isolate import Isolated, Limits
from videodit_data.video.transcode import Recode

T = TypeVar("T")


def key_of(*parts: Any) -> str:
    """Return a file name derived from a hash of these plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


_stopped = threading.Event()
_lock = threading.Lock()
_processes: dict[Limits, Isolated] = {}  # processes of this worker, which its stages share


def _isolated(limits: Limits) -> Isolated:
    with _lock:
        return _processes.setdefault(limits, Isolated("videodit_data.footage.worker:run", limits))


def stop() -> None:
    """End the processes of this worker's stages, and let these stages raise what ends the pipeline."""
    _stopped.set()
    end_processes()


def end_processes() -> None:
    """End the processes of this worker's stages; they are started anew when needed."""
    with _lock:
        for isolated in _processes.values():
            isolated.close()
        _processes.clear()


def resume() -> None:
    """Let stages run again."""
    _stopped.clear()


def stopped() -> bool:
    """Return whether stages were stopped."""
    return _stopped.is_set()


def call(limits: Limits, function: str, path: str, name: str, **arguments: Any) -> Any:
    """Return the result of a function of `worker`; VideoError as it raises, and when the limits are passed."""
    if not stopped():
        try:
            return _isolated(limits)(path, name=name, what=function, **arguments)
        except VideoError:
            if not stopped():
                raise
    raise RuntimeError("The build was stopped.")


def typed_result(values: Any, kind: type[T], name: str) -> T:
    """Return the result of a `call` as a `kind`. VideoError where it is none: its process read a hostile file."""
    try:
        return convert(values, kind, f"{name}: the decoder's answer cannot be read")
    except ValueError as error:
        raise VideoError(str(error)) from error


def _check_unchanged(of: Source | Spot) -> None:
    """Check that a file is unchanged since it was hashed. ValueError if not: its hash would no longer match."""
    try:
        same = file_system.state(of.path) == of.state
    except OSError as error:
        raise RuntimeError(f"{of.path}: cannot be read now ({error.strerror}); run the command again.") from None
    if not same:
        raise ValueError(f"{of.path} changed while the data set was built; run the command again.")


def _reason(error: Exception, name: str) -> str:
    return str(error).removeprefix(f"{name}: ").removesuffix(".")


class Analyze(beam.DoFn):
    """A function of a source to its candidates; tagged "decided": too short parts, and unreadable sources."""

    def __init__(self, config: AnalysisConfig, limits: Limits, folder: str):
        self._config, self._limits, self._folder = dataclasses.asdict(config), limits, folder

    def process(self, source: Source) -> Iterator[Any]:
        result = self._find(source)
        if isinstance(result, str):
            decision = Decision(source.name, "read", _kind(result), detail=result)
            yield beam.pvalue.TaggedOutput("decided", Fate(decision))
            return
        info = result.info
        facts = {"height": info.height, "width": info.width, "fps": info.fps}
        for shot in result.short:
            frames = shot.stop - shot.start
            id = clip_id(source.name, shot.start, frames)
            spot = Spot(id, source.name, source.path, source.hash, shot.start, frames, source.state)
            decision = Decision(
                source.name,
                "split",
                "too short for a clip",
                clip=None,
                start=shot.start,
                frames=frames,
                seconds=frames / info.fps,
                measure="seconds",
                value=frames / info.fps,
                threshold=self._config["clips"]["min_seconds"],
                **facts,
            )
            yield beam.pvalue.TaggedOutput("decided", Fate(decision, spot))
        spans = {}
        for clip in result.clips:
            id = clip_id(source.name, clip.start, clip.frames)
            spot = Spot(id, source.name, source.path, source.hash, clip.start, clip.frames, source.state)
            stop = clip.start_seconds + clip.frames / info.fps
            spans[id] = clip.start_seconds, stop
            yield Candidate(
                spot,
                clip,
                whole=info.frames,
                captions=source.captions_of(id, clip.start_seconds, stop),
                notes=result.notes,
                **facts,
            )
        for row, why in source.unmatched_rows(spans):
            about = row.clip or f"{row.start or 0:g} s to {'the end' if row.stop is None else f'{row.stop:g} s'}"
            decision = Decision(source.name, "captions", why, detail=f"{about}: {' / '.join(row.captions.texts)}")
            yield beam.pvalue.TaggedOutput("decided", Fate(decision))

    def _find(self, source: Source) -> Analysis | str:
        """Return the analysis, or the reason why there is none."""
        key = key_of(source.hash, self._config, dataclasses.asdict(self._limits), MADE_BY)
        note = file_system.join(self._folder, key + ".json")
        if file_system.exists(note):
            result = parse_json(file_system.read(note), Analysis | str, f"{note}, which can be removed")
        else:
            try:
                with file_system.open_local(source.path) as path:
                    values = call(
                        self._limits,
                        "analysis",
                        path=str(path),
                        config=self._config,
                        name=source.name,
                        most_pixels=self._limits.pixels,
                    )
                result = typed_result(values, Analysis, source.name)
            except VideoError as error:
                result = _reason(error, source.name)
            _check_unchanged(source)
            stored = result if isinstance(result, str) else result.to_json()
            file_system.write(note, json.dumps(stored).encode(), once=True)
        return result


_KINDS = {
    "not readable as a video": "not readable as a video",
    "no video stream": "no video stream",
    "no frame": "no frame can be decoded",
    "the video stream holds no frames": "no frame can be decoded",
    "truncated": "truncated",
    "damaged": "damaged",
    "takes longer": "takes longer than allowed",
    "needs more": "needs more memory than allowed",
    "the decoder ended": "crashes the decoder",
    "frames of": "frames too large",
}


def _kind(reason: str) -> str:
    """Return the reason of an error, the same for all failures of one kind."""
    return next((kind for start, kind in _KINDS.items() if reason.startswith(start)), "cannot be decoded")


@dataclass(frozen=True)
class Staged:
    """A kept clip and its encoded file."""

    candidate: Candidate
    path: str
    fps: float
    frames: int
    height: int
    width: int
    sha256: str
    bytes: int
    caption_sources: tuple[str, ...] = ()  # as `Record.caption_sources`; empty where all captions are of files


@dataclass(frozen=True)
class _Facts:
    """The note of a clip's encoded file."""

    fps: Rate
    frames: Size
    height: Size
    width: Size
    sha256: Sha256
    bytes: Count


class Cut(beam.DoFn):
    """A function of candidates of one source to staged clips; tagged "decided": clips that cannot be cut."""

    def __init__(self, recode: Recode | None, limits: Limits, folder: str):
        self._recode = None if recode is None else dataclasses.asdict(recode)
        self._limits, self._folder = limits, folder

    def process(self, element: tuple[str, Iterable[Candidate]]) -> Iterator[Any]:
        candidates = sorted(element[1], key=lambda candidate: candidate.clip.start)
        missing = {}
        for candidate in candidates:
            path, note = self._read_note(candidate.spot)
            if note is None:
                missing[candidate.id] = path
        if missing:
            with file_system.open_local(candidates[0].spot.path) as source:
                for candidate in candidates:
                    if candidate.id in missing:
                        self._cut(str(source), candidate.spot, missing[candidate.id])
        for candidate in candidates:
            path, note = self._read_note(candidate.spot)
            if isinstance(note, str):
                fate = candidate.decided("cut", _kind(note), detail=note)
                yield beam.pvalue.TaggedOutput("decided", fate)
            else:
                yield Staged(candidate, path, **vars(note))

    def _read_note(self, spot: Spot) -> tuple[str, _Facts | str | None]:
        """Return the path of the clip's file, and its note: facts, the reason why it cannot be cut, or None."""
        limits = dataclasses.asdict(self._limits)
        path = file_system.join(self._folder, key_of(spot.hash, spot.start, spot.frames, self._recode, limits))
        note = path + ".json"
        if not file_system.exists(note):
            return path, None
        return path, parse_json(file_system.read(note), _Facts | str, f"{note}, which can be removed")

    def _cut(self, source: str, spot: Spot, path: str) -> None:
        try:
            with file_system.open_for_writing(path) as out:
                values = call(
                    self._limits,
                    "cut",
                    source,
                    spot.name,
                    start=spot.start,
                    frames=spot.frames,
                    recode=self._recode,
                    out=str(out),
                )
                result = vars(typed_result(values, _Facts, spot.name))
                _check_unchanged(spot)
        except VideoError as error:
            result = _reason(error, spot.name)
            _check_unchanged(spot)
        file_system.write(path + ".json", json.dumps(result).encode(), once=True)


class Show(beam.DoFn):
    """A function that writes the thumbnail of a part of a source, if it can be decoded."""

    def __init__(self, limits: Limits, folder: str):
        self._limits, self._folder = limits, folder

    def process(self, element: tuple[str, Iterable[Spot]]) -> Iterator[str]:
        spot = next(iter(element[1]))
        path = file_system.join(self._folder, thumbnail_name(spot.clip))
        if not file_system.exists(path):
            try:
                with file_system.open_local(spot.path) as source, file_system.open_for_writing(path) as out:
                    call(
                        self._limits,
                        "thumbnail",
                        str(source),
                        spot.name,
                        start=spot.start,
                        frames=spot.frames,
                        out=str(out),
                    )
            except VideoError as error:
                logging.getLogger(__name__).warning("no thumbnail: %s", error)
                return
        yield spot.clip
