"""Grain over a data set: shuffled, sharded over processes, decoded on read threads, resumable at any batch.

The order of all clips, epoch after epoch, is one global sequence fixed by the seed, and every random draw of a clip is
fixed by its position in that sequence. Batch k is the k-th run of `batch_size` positions; a process serves the rows of
it that its devices hold. So the data of a step depend neither on the number of processes nor on the number of threads,
and the number of the next batch is all the state there is.
"""

import hashlib
import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import Int64

from videodit_data import manifest
from videodit_data.examples import ClipShape, MakeExample, batch_spec, collate
from videodit_data.records import RecordSource
from videodit_data.spec import Batch, BatchSpec, check_frames
from videodit_data.tokenize import NoTokenizer, Tokenizer


@dataclass(frozen=True)
class LoaderConfig:
    """What is read and how it is served; `evaluation` turns a training configuration into one pass in order."""

    path: str  # directory of the data set
    frames: int = 17  # 1 + 4k
    height: int = 64
    width: int = 64
    fps: float = 8.0  # clips are resampled to this rate
    batch_size: int = 16  # over all processes together
    text_length: int = 32  # tokens, eos included
    caption_dropout: float = 0.1  # how often the caption is served empty
    seed: int = 0
    shuffle: bool = True  # anew every epoch
    repeat: bool = True  # for ever, batches running on from one epoch into the next
    augment: bool = True  # random window, crop and caption; otherwise the first, the centre and the first
    remainder: str = "pad"  # a pass's last, smaller batch: "pad" to full size, "keep" as it is, "drop"
    num_threads: int = 4  # threads that decode; 0 decodes when a batch is asked for
    prefetch: int = 2  # batches decoded ahead
    worker_processes: int = 0  # decode in processes instead: more work a clip, for machines where threads fall short

    def evaluation(self) -> "LoaderConfig":
        """The same clips, each once and in order, without any randomness."""
        return replace(self, shuffle=False, repeat=False, augment=False, caption_dropout=0.0)


class Loader(Iterator[Batch]):
    """Batches of a data set, from the first on or from where a saved state says.

    Clips shorter than `frames` at `fps` are not served: `too_short` says how many (they are logged, too). `clips` are
    served each epoch, which makes `batches` batches of a pass without `repeat` (None with it); of that pass `padded`
    rows hold no clip, or `dropped` clips are not served.
    """

    def __init__(
        self,
        config: LoaderConfig,
        tokenizer: Tokenizer | NoTokenizer,
        *,
        rows: Sequence[int] | None = None,
    ):
        """Open the data set. ValueError when there is none, no clip is long enough, or the options do not fit.

        rows: those of every batch that this process serves, in order; all of them if None.
        """
        rows = range(config.batch_size) if rows is None else rows
        _check(config, rows)
        self.config = config
        described = manifest.load(config.path)
        source = RecordSource([Path(config.path) / shard.name for shard in described.shards])
        shape = ClipShape(config.frames, config.height, config.width, config.fps)
        positions = _long_enough(described, shape)
        self.clips, self.too_short = len(positions), described.clips - len(positions)
        _report(config, described, self.clips, self.too_short)

        self.batches, self.padded, self.dropped = _pass(config, self.clips)
        self.batch_spec: BatchSpec = batch_spec(len(rows), shape, config.text_length, source[int(positions[0])])
        make = MakeExample(
            shape, tokenizer, config.text_length, config.caption_dropout, config.augment, self.batch_spec
        )
        padding = np.full(self.padded, _Positions.PADDING)
        dataset = grain.MapDataset.source(_Positions(source, np.concatenate([positions, padding]))).seed(config.seed)
        dataset = dataset.shuffle() if config.shuffle else dataset
        dataset = dataset.repeat() if config.repeat else dataset
        self._dataset = dataset.random_map(make)  # before rows are picked: its generators count global positions
        self._rows = rows
        self._identity = _identity(config, described, tokenizer)
        self._next, self._running = 0, []
        weakref.finalize(self, _stop, self._running)  # also at the interpreter's exit, while Grain is still there

    def __next__(self) -> Batch:
        if self.batches is not None and self._next >= self.batches:
            raise StopIteration
        if not self._running:
            self._running.append(self._open(self._next))
        batch = Batch(**next(self._running[0]))
        self._next += 1
        return batch

    def _open(self, batch: int) -> grain.DatasetIterator:
        config = self.config
        dataset = _Rows(self._dataset[batch * config.batch_size :], config.batch_size, self._rows)
        threads = 0 if config.prefetch == 0 else config.num_threads
        ahead = 0 if threads == 0 else max(threads, config.prefetch * len(self._rows))
        examples = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
        if config.worker_processes:
            options = grain.MultiprocessingOptions(config.worker_processes, max(1, ahead // config.worker_processes))
            if not flags.FLAGS.is_parsed():  # Grain's worker processes read them, even where no absl app runs
                flags.FLAGS.mark_as_parsed()
            examples = examples.mp_prefetch(options)
        batches = examples.batch(len(self._rows), drop_remainder=config.remainder == "drop", batch_fn=collate)
        if ahead:  # stacking a batch takes the reader's time otherwise
            batches = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1)
        return iter(batches)

    def get_state(self) -> dict[str, Any]:
        """Which batch comes next, and of what data; plain JSON. What was decoded ahead does not count."""
        return {"next_batch": self._next, "of": dict(self._identity)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on as the loader did whose state this is. ValueError when that one served other data."""
        if set(state) != {"next_batch", "of"}:
            raise ValueError(f"Not the state of a loader: it has {sorted(state)}, not 'next_batch' and 'of'.")
        differing = sorted(key for key, value in self._identity.items() if state["of"].get(key) != value)
        if differing:
            raise ValueError(f"This loader cannot go on from a state of other data: {', '.join(differing)} differ.")
        self.close()
        self._next = int(state["next_batch"])

    def close(self) -> None:
        """Stop decoding ahead; the next batch starts it again."""
        _stop(self._running)


def _stop(running: list[grain.DatasetIterator]) -> None:
    while running:
        running.pop().close()


class _Rows(grain.MapDataset):
    """Of every batch of a sequence of examples, some rows."""

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        super().__init__(examples)
        self._batch_size, self._rows = batch_size, rows

    def __len__(self) -> int:
        whole, over = divmod(len(self._parent), self._batch_size)
        return whole * len(self._rows) + sum(row < over for row in self._rows)

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]
        batch, row = divmod(index, len(self._rows))
        return self._parent[batch * self._batch_size + self._rows[row]]


class _Positions(Sequence[bytes]):
    """Packed records by their place in a list of record numbers; padding gives empty bytes."""

    PADDING = -1

    def __init__(self, source: RecordSource, numbers: Int64[np.ndarray, " N"]):
        self._source, self._numbers = source, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        number = int(self._numbers[index])
        return b"" if number == self.PADDING else self._source.packed(number)


def _check(config: LoaderConfig, rows: Sequence[int]) -> None:
    check_frames(config.frames)
    if config.batch_size < 1:
        raise ValueError(f"batch_size is {config.batch_size}: it must be at least 1.")
    if not rows or list(rows) != sorted(set(rows)) or rows[0] < 0 or rows[-1] >= config.batch_size:
        raise ValueError(f"The rows of a process are some of 0..{config.batch_size - 1} in order, not {list(rows)}.")
    if config.remainder not in ("pad", "keep", "drop"):
        raise ValueError(f"remainder must be 'pad', 'keep' or 'drop', not '{config.remainder}'.")
    if config.remainder == "keep" and len(rows) < config.batch_size and not config.repeat:
        raise ValueError("A smaller last batch cannot be kept by several processes; use remainder='pad' or 'drop'.")
    if not 0 <= config.caption_dropout <= 1:
        raise ValueError(f"caption_dropout is a probability, not {config.caption_dropout}.")
    if config.caption_dropout and not config.augment:
        raise ValueError("Captions are dropped only with augment=True; set caption_dropout=0.")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"The seed must lie in 0..2**32-1, not {config.seed}.")


def _long_enough(described: manifest.Manifest, shape: ClipShape) -> Int64[np.ndarray, " N"]:
    """Numbers of the records that the shape fits, from the manifest alone."""
    clips = [clip for shard in described.shards for clip in zip(shard.frames, shard.fps, strict=True)]
    fits = [shape.fits(frames, fps, described.content) for frames, fps in clips]
    return np.flatnonzero(fits).astype(np.int64)


def _report(config: LoaderConfig, described: manifest.Manifest, clips: int, too_short: int) -> None:
    wanted = f"{config.frames} frames at {config.fps:g} a second"
    if not clips:
        raise ValueError(f"{config.path}: none of its {described.clips} clips gives {wanted}.")
    if too_short:
        logging.getLogger(__name__).warning(
            "%s: %d of %d clips do not give %s and are not served.", config.path, too_short, described.clips, wanted
        )


def _pass(config: LoaderConfig, clips: int) -> tuple[int | None, int, int]:
    """(batches, padded rows, dropped clips) of one pass; a repeated sequence needs no end."""
    if config.repeat:
        return None, 0, 0
    full, over = divmod(clips, config.batch_size)
    if config.remainder == "drop":
        if not full:
            raise ValueError(f"{config.path}: {clips} clips do not fill one batch of {config.batch_size}.")
        return full, 0, over
    return math.ceil(clips / config.batch_size), -clips % config.batch_size if config.remainder == "pad" else 0, 0


def _identity(config: LoaderConfig, described: manifest.Manifest, tokenizer: Tokenizer | NoTokenizer) -> dict[str, Any]:
    """What the sequence of batches depends on, in plain JSON."""
    served = ("frames", "height", "width", "fps", "batch_size", "text_length", "caption_dropout", "seed")
    order = ("shuffle", "repeat", "augment", "remainder")
    shards = hashlib.sha256("".join(shard.sha256 for shard in described.shards).encode()).hexdigest()
    return {name: getattr(config, name) for name in served + order} | {
        "shards": shards,
        "tokenizer": hashlib.sha256(tokenizer.model).hexdigest(),
    }
