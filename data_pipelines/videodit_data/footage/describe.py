"""Captioning of kept clips by a model, if requested: every answer is stored under the hash of its question.

A resumed build requests only missing answers. A clip with a lasting failure keeps the captions that it has, or else is
dropped; a failure that may not recur ends the build instead, which then resumes with the same command.
"""

import dataclasses
import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
import numpy as np
from jaxtyping import UInt8

from videodit_data.boundary.typed_json import parse_json
from videodit_data.captioning.captioner import (
    Answer,
    Captioner,
    Clip,
    Failure,
    Identity,
    Keep,
    ask,
    load,
    merge_captions,
)
from videodit_data.captioning.endpoint import Endpoint, EndpointConfig
from videodit_data.captioning.lengths import parse_lengths
from videodit_data.captioning.look import Look
from videodit_data.footage import file_system
from videodit_data.footage.stages import Staged, call, key_of
from videodit_data.thread_pool import ordered_map
from videodit_data.video import VideoError
from videodit_data.video.isolate import Limits

_BATCH = 32  # clips of one batch, captioned concurrently


@dataclass(frozen=True)
class CaptionerConfig:
    """Settings of the model that captions kept clips.

    Attributes:
        use: "module:function" (see captioning/captioner.py), or the address of an OpenAI-style chat endpoint.
        model, key_env, per_minute: of an endpoint, see `EndpointConfig`; each worker counts its own minutes.
        concurrency: clips that each worker captions concurrently.
        lengths: of captions, see captioning/lengths.py.
        keep: where captions that a clip has stay: before the new ones, after them, or nowhere.
        frames, side: frames of a clip that the captioner gets, and pixels of their longer side.
    """

    use: str | None = None
    model: str | None = None
    key_env: str | None = None
    per_minute: float | None = None
    concurrency: int = 4
    lengths: str = "short,medium,long"
    keep: Keep = "after"
    frames: int = 8
    side: int = 512

    def __post_init__(self) -> None:
        parse_lengths(self.lengths)
        Look(self.frames, self.side)
        if self.concurrency < 1:
            raise ValueError(f"A captioner needs a concurrency of at least one clip, not {self.concurrency}.")
        if self.use is not None and self.is_endpoint and not self.model:
            raise ValueError("An endpoint needs the name of the model to ask.")

    @property
    def is_endpoint(self) -> bool:
        """Return whether `use` is an address."""
        return self.use is not None and "://" in self.use

    def open(self) -> tuple[Captioner, Identity]:
        """Return the captioner and its identity. ValueError when there is no such captioner."""
        assert self.use is not None
        if not self.is_endpoint:
            return load(self.use)
        endpoint = Endpoint(
            EndpointConfig(
                self.use,
                self.model or "",
                key_env=self.key_env,
                concurrency=self.concurrency,
                per_minute=self.per_minute,
            )
        )
        return endpoint, endpoint.identity

    def identity(self) -> dict[str, Any] | None:
        """Return the settings that determine captions, as JSON: no address, no key, no rate."""
        if self.use is None:
            return None
        _, identity = self.open()
        settings = {name: getattr(self, name) for name in ("lengths", "keep", "frames", "side")}
        return identity.to_json() | settings


_lock = threading.Lock()
_open: dict[CaptionerConfig, "_Open"] = {}  # captioners of this worker: an endpoint has its own rate limit


class _Open:
    """A captioner that all threads of this worker share, with a limit on concurrent clips."""

    def __init__(self, config: CaptionerConfig):
        self.captioner, self.identity = config.open()
        self.room = threading.BoundedSemaphore(config.concurrency)


def stop() -> None:
    """Stop the requests of this worker's captioners, if they support this."""
    with _lock:
        for each in _open.values():
            end = getattr(each.captioner, "stop", None)
            if end is not None:
                end(cut=True)
        _open.clear()


class Caption(beam.PTransform):
    """A transform that adds captions to staged clips; a dict of "passed" and "decided"."""

    def __init__(self, config: CaptionerConfig, limits: Limits, folder: str):
        super().__init__()
        self._config, self._limits, self._folder = config, limits, folder

    def expand(self, staged: beam.PCollection) -> Any:
        captioned = (
            staged
            | "Together" >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
            | "Ask" >> beam.ParDo(Ask(self._config, self._limits, self._folder)).with_outputs("decided", main="passed")
        )
        return {"passed": captioned.passed, "decided": captioned.decided}


@dataclass(frozen=True)
class _StoredAnswer:
    """The note of an answer."""

    captions: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if bool(self.captions) == (self.failure is not None):
            raise ValueError("it needs either 'captions' or 'failure'")


class Ask(beam.DoFn):
    """A function that adds captions to a batch of staged clips; tagged "decided": those without captions."""

    def __init__(self, config: CaptionerConfig, limits: Limits, folder: str):
        self._config, self._limits, self._folder = config, limits, folder
        self._lengths, self._look = parse_lengths(config.lengths), Look(config.frames, config.side)

    def process(self, clips: Sequence[Staged]) -> Iterator[Any]:
        with _lock:
            opened = _open.get(self._config) or _open.setdefault(self._config, _Open(self._config))

        def answer(clip: Staged) -> Answer:
            return self._answer(clip, opened)

        for clip, result in zip(clips, ordered_map(answer, clips, self._config.concurrency), strict=True):
            if not isinstance(result, Failure):
                yield self._with(clip, result, opened.identity)
            elif any(clip.candidate.captions.texts):
                yield clip
            else:
                fate = clip.candidate.decided("caption", result.reason, detail=result.detail or None)
                yield beam.pvalue.TaggedOutput("decided", fate)

    def _answer(self, clip: Staged, opened: _Open) -> Answer:
        about = [opened.identity.to_json(), self._config.lengths, dataclasses.asdict(self._look)]
        key = key_of(clip.candidate.id, clip.sha256, clip.candidate.captions.texts, about)
        note = file_system.join(self._folder, key + ".json")
        if file_system.exists(note):
            stored = parse_json(file_system.read(note), _StoredAnswer, f"{note}, which can be removed", nul=True)
            return stored.captions if stored.failure is None else stored.failure
        try:
            frames = self._decode(clip)
        except VideoError as error:
            return Failure("not decodable", str(error))
        with opened.room:
            (answer,) = ask(opened.captioner, [frames], self._lengths)
        if isinstance(answer, Failure):
            if not answer.lasting:
                raise RuntimeError(f"No captions for {clip.candidate.id} ({answer.reason}); run the command again.")
            result: dict[str, Any] = {"failure": dataclasses.asdict(answer)}
        else:
            result = {"captions": dict(answer)}
        file_system.write(note, json.dumps(result).encode(), once=True)
        return answer

    def _decode(self, clip: Staged) -> Clip:
        """Return the captioner's input; another process decodes the frames, within limits. VideoError as `call`."""
        facts = {name: getattr(clip, name) for name in ("fps", "frames", "height", "width")}
        with file_system.open_local(clip.path) as path:
            data = call(
                self._limits, "look", str(path), clip.candidate.id, facts=facts, look=dataclasses.asdict(self._look)
            )
        frames = _read_frames(data, clip.candidate.id)
        texts = tuple(filter(str.strip, clip.candidate.captions.texts))
        return Clip(clip.candidate.id, clip.sha256, frames, clip.frames / clip.fps, clip.fps, texts)

    def _with(self, clip: Staged, answer: Answer, identity: Identity) -> Staged:
        captions = clip.candidate.captions
        sources_before = ("file",) * len(captions.texts)
        texts, sources = merge_captions(answer, identity, captions.texts, sources_before, self._config.keep)
        candidate = replace(clip.candidate, captions=replace(captions, texts=texts))
        return replace(clip, candidate=candidate, caption_sources=sources)


def _read_frames(data: Any, name: str) -> UInt8[np.ndarray, "T Y X 3"]:
    """Return frames from the .npy file that another process sent. VideoError where it is none."""
    try:
        frames = np.load(io.BytesIO(data), allow_pickle=False)
    except (TypeError, ValueError, EOFError, OSError, MemoryError) as error:
        raise VideoError(f"{name}: the decoder sent no frames ({type(error).__name__}).") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise VideoError(f"{name}: the decoder sent {frames.dtype} of shape {frames.shape}, not frames.")
    return frames
