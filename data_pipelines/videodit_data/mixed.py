"""Clips of any size and length, of several data sets: served in buckets, or packed into rows of one length.

What `loader.Loader` does for one shape and one data set: the order of clips is one global sequence fixed by the seed,
every draw of a clip is fixed by its place there, and plans (`planning`) make batches of it that depend neither on the
number of processes nor on that of threads. The state is where the plan stands.
"""

import functools
import hashlib
import itertools
import json
import logging
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from videodit_data.bucketing import Bucket, Buckets, assign
from videodit_data.examples import ClipShape, Example, collate, latents, pixels
from videodit_data.packing import Packing, grid_positions, patchify, token_grid
from videodit_data.planning import BucketPlan, PackPlan, Plan, Row
from videodit_data.pool import ordered_map
from videodit_data.records import Record
from videodit_data.sequence import Mixture, Part, open_data_set
from videodit_data.spec import Batch, PackedBatch
from videodit_data.tokenize import NoTokenizer, Tokenizer
from videodit_data.transforms import choose_caption

Rows = Callable[[int], Sequence[int]]
_MOMENTS = "latent_mean", "latent_logvar"


@dataclass(frozen=True)
class MixedConfig:
    """What is read and how it is served; `evaluation` turns it into one pass in order.

    Attributes:
        parts: data sets by weight, all of videos or all of latents.
        buckets: shapes that clips are served in; latents keep their own, and share the batch's tokens.
        packing: rows that several clips of latents share, in place of buckets.
        rows: of a packed batch, over all processes together.
        multiple: what the size of a bucket's batch is a multiple of (the devices that share it).
        text_length: tokens of a caption, eos included. caption_dropout: how often it is served empty.
        augment: random window, crop and caption; otherwise the first, the centre and the first.
        num_threads: that read and decode. prefetch: rows read ahead.
    """

    parts: tuple[Part, ...]
    buckets: Buckets = field(default_factory=Buckets)
    packing: Packing | None = None
    rows: int = 8
    multiple: int = 1
    text_length: int = 32
    caption_dropout: float = 0.1
    seed: int = 0
    shuffle: bool = True
    repeat: bool = True
    augment: bool = True
    num_threads: int = 4
    prefetch: int = 32

    def evaluation(self) -> "MixedConfig":
        """The same clips, each once and in order, without any randomness."""
        return replace(self, shuffle=False, repeat=False, augment=False, caption_dropout=0.0)


class Source:
    """The data sets of a configuration, and how each of their clips is served.

    `shapes` are all buckets that have a clip; `assigned` says for each part which clip has which, and how many none.
    """

    def __init__(self, config: MixedConfig):
        """ValueError when there is no data set, videos and latents are mixed, or a clip is larger than a row."""
        if not config.parts:
            raise ValueError("A mixture needs at least one data set.")
        self.config, self.sets = config, [open_data_set(part.path) for part in config.parts]
        contents = {each.manifest.content for each in self.sets}
        if len(contents) > 1:
            raise ValueError("A mixture is of videos or of latents, not of both.")
        self.latent = contents == {"latent"}
        choose = _own if self.latent else config.buckets.choose
        self.assigned = [assign(choose, each.clips) for each in self.sets]
        self.shapes = sorted({bucket for assigned in self.assigned for bucket in assigned.buckets})
        self._place = {bucket: number for number, bucket in enumerate(self.shapes)}
        for each, assigned in zip(self.sets, self.assigned, strict=True):
            if not (assigned.of >= 0).any():
                reasons = ", ".join(f"{count} {reason}" for reason, count in assigned.dropped.items())
                raise ValueError(f"{each.path}: no clip fits the buckets: {reasons}.")
            for reason, count in assigned.dropped.items():
                message = "%s: %d of %d clips are %s for the buckets and are not served."
                logging.getLogger(__name__).warning(message, each.path, count, len(assigned.of), reason)
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

    def cost(self, bucket: Bucket) -> int:
        """Tokens of a clip of a bucket."""
        token = self.config.packing.token if self.config.packing else self.config.buckets.token
        return token.count(bucket.frames, bucket.height, bucket.width)

    def batch(self, bucket: Bucket) -> int:
        """Clips of a bucket's batch; ValueError when there is no room for as many as must share it."""
        multiple = self.config.multiple
        size = self.config.buckets.batch(bucket) // multiple * multiple
        if not size:
            raise ValueError(
                f"A batch of {self.config.buckets.tokens} tokens has no room for {multiple} clips of {bucket}, of "
                f"{self.cost(bucket)} each."
            )
        return size

    def plan(self) -> Plan:
        """A fresh plan of all batches."""
        config, length = self.config, self.mixture.length
        if config.packing:
            return PackPlan(lambda place: self.cost(self.shape(place)), config.packing, config.rows, length)
        sizes = [self.batch(bucket) for bucket in self.shapes]
        return BucketPlan(lambda place: self._place[self.shape(place)], sizes.__getitem__, length)

    def record(self, place: int) -> Record:
        """The clip at a place of the mixture."""
        part, number = self.mixture[place]
        return self.sets[part].records[number]

    def content(self, record: Record, bucket: Bucket, rng: np.random.Generator | None) -> Example:
        """A clip's pixels as bytes, or the moments of its latents."""
        shape = ClipShape(bucket.frames, bucket.height, bucket.width, record.fps)
        if self.latent:
            return dict(zip(("latent_mean", "latent_logvar"), latents(record, shape), strict=True))
        return {"video": pixels(record, replace(shape, fps=self.config.buckets.fps), rng)}

    @functools.cache  # noqa: B019 - lives as long as its loader
    def blank(self, bucket: Bucket) -> Example:
        """What stands in for a clip of a bucket where there is none."""
        if not self.latent:
            return {"video": np.zeros((bucket.frames, bucket.height, bucket.width, 3), np.uint8)}
        for data, assigned in zip(self.sets, self.assigned, strict=True):
            if bucket in assigned.buckets:
                number = int(np.argmax(assigned.of == assigned.buckets.index(bucket)))
                like = self.content(data.records[number], bucket, None)
                return {name: np.zeros_like(value) for name, value in like.items()}
        raise KeyError(bucket)


def _own(frames: int, fps: float, height: int, width: int) -> Bucket:
    """The shape of latents, which were made in it."""
    return Bucket(frames, height, width)


class MixedLoader(Iterator[Batch | PackedBatch]):
    """Batches of a mixture, from the first on or from where a saved state says.

    `served` counts the clips that came of each part, and `epochs` says how often each has been gone through.
    """

    def __init__(self, config: MixedConfig, tokenizer: Tokenizer | NoTokenizer, *, rows: Rows = range):
        """Open the data sets; `rows` gives of a batch's size those that this process serves, all by default.

        ValueError as `Source`, and for videos that are to be packed.
        """
        self.config, self.source, self._tokenizer, self._rows = config, Source(config), tokenizer, rows
        if config.packing and not self.source.latent:
            raise ValueError("Only latents are packed: code the clips first (videodit data encode).")
        self._identity = _identity(config, self.source, tokenizer)
        self.served = [0] * len(config.parts)
        self._state = self._snapshot(self.source.plan(), self.served)
        self._running: list[Iterator[Example]] = []
        self._planned: deque[tuple[int, dict[str, Any]]] = deque()
        weakref.finalize(self, _stop, self._running)

    @property
    def epochs(self) -> list[float]:
        """How often each part has been gone through."""
        counts = [int((assigned.of >= 0).sum()) for assigned in self.source.assigned]
        return [served / count for served, count in zip(self.served, counts, strict=True)]

    def __next__(self) -> Batch | PackedBatch:
        if not self._running:
            self._running.append(self._open())
        first = next(self._running[0])
        here, state = self._planned.popleft()
        examples = [first, *itertools.islice(self._running[0], here - 1)]
        self._state, self.served = state, list(state["served"])
        if self.config.packing:
            like = self.source.blank(self.source.shapes[0])["latent_mean"]
            return _packed([example["clips"] for example in examples], self.config, like)
        return Batch(**collate(examples))

    def _open(self) -> Iterator[Example]:
        plan, served = self.source.plan(), list(self._state["served"])
        plan.set_state(self._state["plan"])

        def rows() -> Iterator[tuple[Row, Bucket | None]]:
            for batch in plan:
                places = [place for row in batch for place in row]
                for place in places:
                    served[self.source.mixture[place][0]] += 1
                here = self._rows(len(batch))
                self._planned.append((len(here), self._snapshot(plan, served)))
                bucket = None if self.config.packing else self.source.shape(places[0])
                yield from ((batch[row], bucket) for row in here)

        threads = max(1, self.config.num_threads)
        return ordered_map(lambda row: self._make(*row), rows(), threads, ahead=self.config.prefetch)

    def _snapshot(self, plan: Plan, served: list[int]) -> dict[str, Any]:
        return {"plan": plan.get_state(), "served": list(served), "of": self._identity}

    def _make(self, row: Row, bucket: Bucket | None) -> Example:
        if bucket is None:
            return {"clips": [self._clip(place, self.source.shape(place)) for place in row]}
        return self._clip(row[0], bucket) if row else self.source.blank(bucket) | _no_text(self.config.text_length)

    def _clip(self, place: int, bucket: Bucket) -> Example:
        """One clip as an example; every draw comes from its place, the caption's first."""
        config, record = self.config, self.source.record(place)
        rng = np.random.default_rng([config.seed, place]) if config.augment else None
        caption = choose_caption(record.captions, config.caption_dropout, rng)
        ids, mask = self._tokenizer.encode([caption], config.text_length)
        fps = record.fps if self.source.latent else config.buckets.fps
        text = {"text_ids": ids[0], "text_mask": mask[0], "fps": np.float32(fps)}
        names = {"clip_ids": record.id, "captions": caption}
        return self.source.content(record, bucket, rng) | text | names

    def get_state(self) -> dict[str, Any]:
        """Where the plan stands, and of what data; plain JSON. What was read ahead does not count."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on as the loader did whose state this is. ValueError when that one served other data."""
        if set(state) != {"plan", "served", "of"}:
            raise ValueError(f"Not the state of such a loader: it has {sorted(state)}, not 'plan', 'served' and 'of'.")
        differing = sorted(key for key, value in self._identity.items() if state["of"].get(key) != value)
        if differing:
            raise ValueError(f"This loader cannot go on from a state of other data: {', '.join(differing)} differ.")
        self.close()
        self._state, self.served = state, list(state["served"])

    def close(self) -> None:
        """Stop reading ahead; the next batch starts it again."""
        _stop(self._running)
        self._planned.clear()


def _stop(running: list[Iterator[Example]]) -> None:
    while running:
        running.pop().close()  # type: ignore[attr-defined]


def _no_text(length: int) -> Example:
    ids, mask = np.zeros(length, np.int32), np.zeros(length, bool)
    return {"text_ids": ids, "text_mask": mask, "fps": np.float32(0), "clip_ids": "", "captions": ""}


def _packed(rows: Sequence[Sequence[Example]], config: MixedConfig, like: np.ndarray) -> PackedBatch:
    """Rows of clips as rows of tokens, one clip after the other; `like` is a clip's mean."""
    packing, count = config.packing, len(rows)
    features = math.prod(packing.patch) * like.shape[-1]
    moments = {name: np.zeros((count, packing.length, features), like.dtype) for name in _MOMENTS}
    positions = np.zeros((count, packing.length, 3), np.int32)
    segments = np.zeros((count, packing.length), np.int32)
    told = [[_no_text(config.text_length)] * packing.clips for _ in rows]
    for row, clips in enumerate(rows):
        start = 0
        for number, clip in enumerate(clips):
            grid = token_grid(clip["latent_mean"].shape[:3], packing.patch)
            there = row, slice(start, start := start + math.prod(grid))
            for name, out in moments.items():
                out[there] = patchify(clip[name], packing.patch)
            positions[there], segments[there] = grid_positions(grid), number + 1
            told[row][number] = clip
    stacked = {
        name: np.array([[clip[name] for clip in row] for row in told]) for name in ("text_ids", "text_mask", "fps")
    }
    names = {name: tuple(tuple(clip[name] for clip in row) for row in told) for name in ("clip_ids", "captions")}
    return PackedBatch(**moments, positions=positions, segments=segments, **stacked, **names)


def _identity(config: MixedConfig, source: Source, tokenizer: Tokenizer | NoTokenizer) -> dict[str, Any]:
    """What the sequence of batches depends on, in plain JSON."""
    how = {name: value for name, value in asdict(config).items() if name not in ("parts", "num_threads", "prefetch")}
    shards = [[shard.sha256 for shard in each.manifest.shards] for each in source.sets]
    return json.loads(json.dumps(how)) | {
        "weights": [part.weight for part in config.parts],
        "shards": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
        "tokenizer": hashlib.sha256(tokenizer.model).hexdigest(),
    }
