"""The memory of a batch, which clips are read straight into, on many threads side by side."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from videodit_data.reading.batch import ArraySpec, Batch, PackedBatch
from videodit_data.reading.batch_plan import Row
from videodit_data.reading.buckets import Bucket
from videodit_data.reading.buffer_pool import BufferPool
from videodit_data.reading.clip_source import ClipSource
from videodit_data.reading.packing import grid_positions, patchify, token_grid
from videodit_data.reading.sample import ClipShape, latents, pixels
from videodit_data.reading.text_inputs import TextInput
from videodit_data.reading.transforms import choose_caption

_MOMENTS = "latent_mean", "latent_logvar"
_LARGE = {"video", *_MOMENTS}  # in memory that is used again


@dataclass(frozen=True)
class PartialBatch:
    """A batch that is being filled: its arrays by name, and the names of its clips."""

    arrays: Mapping[str, np.ndarray]
    clip_ids: list[Any]
    captions: list[Any]
    bucket: Bucket | None = None

    def batch(self) -> Batch | PackedBatch:
        """The batch, once every row is filled."""
        kind = Batch if self.bucket else PackedBatch
        names = ("text_ids", "video", *_MOMENTS) if self.bucket else ("text_ids",)
        absent = dict.fromkeys(name for name in names if name not in self.arrays)
        return kind(**self.arrays, **absent, clip_ids=tuple(self.clip_ids), captions=tuple(self.captions))


class BatchBuilder:
    """Makes the memory of batches and fills their rows; every draw of a clip comes from its place, the caption's first.

    A caption dropped is still drawn: what is drawn after it does not depend on it.
    """

    def __init__(self, source: ClipSource, texts: TextInput):
        self._source, self._texts, self._packing = source, texts, source.config.packing
        self._moments = functools.cache(source.moments)
        self._memory = BufferPool(keep=(1 + source.latent) * (source.config.prefetch + 2))  # of that many batches

    def empty(self, rows: int, bucket: Bucket | None) -> PartialBatch:
        """BufferPool for clips of a bucket, or for packed rows without one."""
        specs = dict(self._texts.specs) | {"fps": ArraySpec((), np.dtype(np.float32))}
        if self._packing:
            length, clips = self._packing.length, self._packing.clips
            specs = {name: ArraySpec((clips, *shape), dtype) for name, (shape, dtype) in specs.items()}
            moments = self._moments(self._source.shapes[0])
            features = math.prod(self._packing.patch) * moments.shape[-1]
            specs |= dict.fromkeys(_MOMENTS, ArraySpec((length, features), moments.dtype))
            specs["positions"] = ArraySpec((length, 3), np.dtype(np.int32))
            specs["segments"] = ArraySpec((length,), np.dtype(np.int32))
        elif self._source.latent:
            specs |= dict.fromkeys(_MOMENTS, self._moments(bucket))
        else:
            frames = bucket.frames, bucket.height, bucket.width, 3
            specs["video"] = ArraySpec(frames, np.dtype(np.uint8))
        arrays = {
            name: self._memory.array(rows, spec) if name in _LARGE else np.zeros((rows, *spec.shape), spec.dtype)
            for name, spec in specs.items()
        }
        return PartialBatch(arrays, ["" for _ in range(rows)], ["" for _ in range(rows)], bucket)

    def fill(self, filling: PartialBatch, number: int, row: Row) -> None:
        """Reads the clips of a row, and makes zero what no clip fills."""
        out = {name: array[number, ...] for name, array in filling.arrays.items()}
        if not self._packing:
            for place in row:
                filling.clip_ids[number], filling.captions[number] = self._clip(place, filling.bucket, out)
            if not row:
                for name in out.keys() & _LARGE:
                    out[name][...] = 0
            return
        start, told = 0, [("", "")] * self._packing.clips
        for slot, place in enumerate(row):
            bucket = self._source.shape(place)
            here = slice(start, start := start + self._source.cost(bucket))
            there = {name: array[slot, ...] for name, array in out.items() if name in ("fps", *self._texts.specs)}
            there |= {name: out[name][here] for name in (*_MOMENTS, "positions")}
            told[slot] = self._clip(place, bucket, there)
            out["segments"][here] = slot + 1
        for name in _MOMENTS:
            out[name][start:] = 0
        filling.clip_ids[number], filling.captions[number] = zip(*told, strict=True)

    def _clip(self, place: int, bucket: Bucket, out: Mapping[str, np.ndarray]) -> tuple[str, str]:
        """Writes what is served of the clip at a place; returns its id and its caption."""
        config, record = self._source.config, self._source.record(place)
        rng = np.random.default_rng([config.seed, place]) if config.augment else None
        caption = choose_caption(record.captions, config.caption_dropout, rng)
        fps = self._source.fps(record)
        for name, value in {**self._texts(caption), "fps": fps}.items():
            out[name][...] = value
        shape = ClipShape(bucket.frames, bucket.height, bucket.width, fps)
        if not self._source.latent:
            pixels(record, shape, rng, out["video"])
            return record.id, caption
        for name, moments in zip(_MOMENTS, latents(record, shape), strict=True):
            if self._packing:
                patchify(moments, self._packing.patch, out[name])
            else:
                out[name][...] = moments
        if self._packing:
            grid_positions(token_grid(moments.shape[:3], self._packing.patch), out["positions"])
        return record.id, caption
