"""Building batches: allocates a batch, and reads clips straight into it on several threads."""

import functools
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from videodit_data.reading.batch import ArraySpec, Batch, HostBatch
from videodit_data.reading.batch_plan import Entry
from videodit_data.reading.buckets import Bucket
from videodit_data.reading.buffer_pool import BufferPool
from videodit_data.reading.clip_source import ClipSource
from videodit_data.reading.conditions import SampledClip, compute_condition
from videodit_data.reading.packing import grid_positions, patchify, token_grid
from videodit_data.reading.sample import ClipShape, decode_pixels, read_latents
from videodit_data.reading.text_inputs import TextInput
from videodit_data.reading.transforms import choose_caption
from videodit_data.storage.records import Record

_POSTERIOR = "latent_mean", "latent_logvar"
_POOLED = {"video", *_POSTERIOR}  # large arrays, in reused memory

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True)
class PartialBatch:
    """A batch whose entries are being filled.

    Attributes:
        arrays, conditions: its arrays by name.
        clip_ids, captions: of each entry, "" until it is filled; for packed sequences one per clip.
        bucket: of all clips; None for packed sequences.
    """

    arrays: Arrays
    conditions: Arrays
    clip_ids: list[str] | list[tuple[str, ...]]
    captions: list[str] | list[tuple[str, ...]]
    bucket: Bucket | None

    def finish(self) -> HostBatch:
        """Return the batch, once every entry is filled."""
        arrays = Batch(
            video=self.arrays.get("video"),
            latent_mean=self.arrays.get("latent_mean"),
            latent_logvar=self.arrays.get("latent_logvar"),
            text_ids=self.arrays.get("text_ids"),
            text_mask=self.arrays["text_mask"],
            fps=self.arrays["fps"],
            valid=_is_valid(self.clip_ids),
            segments=self.arrays.get("segments"),
            positions=self.arrays.get("positions"),
            text=self.arrays.get("text"),
            conditions=self.conditions,
        )
        return HostBatch(arrays, tuple(self.clip_ids), tuple(self.captions))


class BatchBuilder:
    """Allocates batches and fills their entries.

    Every random draw of a clip comes from its position in the mixture, the caption's first. A caption that is dropped
    is still drawn: later draws do not depend on it.
    """

    def __init__(self, source: ClipSource, text_input: TextInput):
        self._source, self._text_input, self._packing = source, text_input, source.config.packing
        self._latent_spec = functools.cache(source.latent_spec)
        self._condition_specs = functools.cache(self._probe_conditions)
        self._pool = BufferPool(max_free=(1 + source.latent) * (source.config.prefetch + 2))  # of that many batches

    def allocate(self, batch_size: int, bucket: Bucket | None) -> PartialBatch:
        """Return an empty batch for clips of a bucket, or for packed sequences without one."""
        specs = dict(self._text_input.specs) | {"fps": ArraySpec((), np.dtype(np.float32))}
        if self._packing:
            length, clips = self._packing.length, self._packing.clips
            specs = {name: ArraySpec((clips, *spec.shape), spec.dtype) for name, spec in specs.items()}
            latent = self._latent_spec(self._source.buckets[0])
            features = math.prod(self._packing.patch) * latent.shape[-1]
            specs |= dict.fromkeys(_POSTERIOR, ArraySpec((length, features), latent.dtype))
            specs["positions"] = ArraySpec((length, 3), np.dtype(np.int32))
            specs["segments"] = ArraySpec((length,), np.dtype(np.int32))
        elif self._source.latent:
            specs |= dict.fromkeys(_POSTERIOR, self._latent_spec(bucket))
        else:
            frames = bucket.frames, bucket.height, bucket.width, 3
            specs["video"] = ArraySpec(frames, np.dtype(np.uint8))
        arrays = {
            name: self._pool.allocate(batch_size, spec) if name in _POOLED else _zeros(batch_size, spec)
            for name, spec in specs.items()
        }
        conditions = {
            name: _zeros(batch_size, spec) for name, spec in (self._condition_specs(bucket) if bucket else {}).items()
        }
        empty = ("",) * self._packing.clips if self._packing else ""
        return PartialBatch(arrays, conditions, [empty] * batch_size, [empty] * batch_size, bucket)

    def fill(self, batch: PartialBatch, index: int, entry: Entry) -> None:
        """Read the clips of an entry into a batch, and write zeros where there is none."""
        out = {name: array[index, ...] for name, array in batch.arrays.items()}
        if self._packing:
            batch.clip_ids[index], batch.captions[index] = self._fill_packed(entry, out)
            return
        for position in entry:
            record, caption = self._write_clip(position, batch.bucket, out)
            batch.clip_ids[index], batch.captions[index] = record.id, caption
            self._write_conditions(batch, index, position, record, caption, out)
        if not entry:
            for name in out.keys() & _POOLED:
                out[name][...] = 0

    def _fill_packed(self, entry: Entry, out: Arrays) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Write a packed sequence; returns ids and captions of its clips."""
        start, texts = 0, [("", "")] * self._packing.clips
        for slot, position in enumerate(entry):
            bucket = self._source.bucket(position)
            tokens = slice(start, start := start + self._source.count_tokens(bucket))
            clip_out = {
                name: array[slot, ...] for name, array in out.items() if name in ("fps", *self._text_input.specs)
            }
            clip_out |= {name: out[name][tokens] for name in (*_POSTERIOR, "positions")}
            record, caption = self._write_clip(position, bucket, clip_out)
            texts[slot] = record.id, caption
            out["segments"][tokens] = slot + 1
        for name in _POSTERIOR:
            out[name][start:] = 0
        ids, captions = zip(*texts, strict=True)
        return ids, captions

    def _write_clip(self, position: int, bucket: Bucket, out: Arrays) -> tuple[Record, str]:
        """Write the arrays of the clip at a position; returns its record and its caption."""
        config, record = self._source.config, self._source.record(position)
        rng = np.random.default_rng([config.seed, position]) if config.augment else None
        caption = choose_caption(record.captions, config.caption_dropout, rng)
        fps = self._source.fps(record)
        for name, value in {**self._text_input(caption), "fps": fps}.items():
            out[name][...] = value
        shape = ClipShape(bucket.frames, bucket.height, bucket.width, fps)
        if not self._source.latent:
            decode_pixels(record, shape, rng, out["video"])
            return record, caption
        for name, values in zip(_POSTERIOR, read_latents(record, shape), strict=True):
            if self._packing:
                patchify(values, self._packing.patch, out[name])
            else:
                out[name][...] = values
        if self._packing:
            grid_positions(token_grid(values.shape[:3], self._packing.patch), out["positions"])
        return record, caption

    def _write_conditions(
        self, batch: PartialBatch, index: int, position: int, record: Record, caption: str, out: Arrays
    ) -> None:
        for name, array in batch.conditions.items():
            clip = self._sampled_clip(name, position, record, caption, out)
            value = compute_condition(name, clip)
            if (value.shape, value.dtype) != (array.shape[1:], array.dtype):
                raise ValueError(
                    f"The condition {name!r} of clip {record.id} is {value.dtype} {value.shape}; the first clip of its "
                    f"bucket has {array.dtype} {array.shape[1:]}, and all of a bucket must have the same."
                )
            array[index] = value

    def _sampled_clip(self, name: str, position: int, record: Record, caption: str, out: Arrays) -> SampledClip:
        config = self._source.config
        rng = np.random.default_rng([config.seed, position, zlib.crc32(name.encode())]) if config.augment else None
        return SampledClip(
            record=record,
            caption=caption,
            fps=self._source.fps(record),
            video=out.get("video"),
            latent_mean=out.get("latent_mean"),
            rng=rng,
        )

    def _probe_conditions(self, bucket: Bucket) -> dict[str, ArraySpec]:
        """Return shapes and dtypes of all conditions, as the first clip of a bucket has them."""
        if not self._source.config.conditions:
            return {}
        record = self._source.first_record(bucket)
        shape = ClipShape(bucket.frames, bucket.height, bucket.width, self._source.fps(record))
        if self._source.latent:
            out = {"latent_mean": read_latents(record, shape)[0]}
        else:
            out = {"video": decode_pixels(record, shape)}
        caption, specs = record.captions[0], {}
        for name in self._source.config.conditions:
            value = compute_condition(name, self._sampled_clip(name, 0, record, caption, out))
            specs[name] = ArraySpec(value.shape, value.dtype)
        return specs


def _zeros(batch_size: int, spec: ArraySpec) -> Shaped[np.ndarray, "..."]:
    return np.zeros((batch_size, *spec.shape), spec.dtype)


def _is_valid(clip_ids: list[str] | list[tuple[str, ...]]) -> Bool[np.ndarray, "B *K"]:
    return np.array(clip_ids, dtype=object) != ""
