"""Batches of captioned clips: shuffled, mixed, divided over processes, decoded on threads, resumable at any batch.

The order of clips, epoch after epoch, is one global sequence fixed by the seed (`mixture`), every draw of a clip is
fixed by its place there, and plans (`batch_plan`) make batches of it from sizes alone. So the data of a step depend
neither on the number of processes nor on that of threads, and the state is where the plan stands.

Clips are decoded straight into the memory of their batch: what Grain's readers would copy once more, or twice.
"""

import hashlib
import json
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from videodit_data.reading.batch import Batch, PackedBatch
from videodit_data.reading.batch_builder import BatchBuilder, PartialBatch
from videodit_data.reading.batch_plan import Plan
from videodit_data.reading.clip_source import ClipSource
from videodit_data.reading.mixture import ORDER
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TextInput

BatchIndices = Callable[[int], Sequence[int]]


class _Begun(NamedTuple):
    """A batch that is being read, and the loader's state after it."""

    filling: PartialBatch
    rows: list[Future[None]]
    state: dict[str, Any]


class BatchIterator(Iterator[Batch | PackedBatch]):
    """Batches, from the first on or from where a saved state says.

    `served` counts the clips that came of each part; `epochs`, by path, how often each has been gone through. Clips
    that fit no shape are not served: they are logged, and `source.assigned` counts them by reason.
    """

    def __init__(self, config: ReaderConfig, texts: TextInput, *, rows: BatchIndices = range):
        """Open the data sets. ValueError as `ClipSource`.

        rows: given a batch's size, those of its rows that this process serves, in order; all by default.
        """
        self.config, self.source = config, ClipSource(config)
        self._filler, self._rows = BatchBuilder(self.source, texts), rows
        self._identity = _identity(self.source, texts)
        self.served = [0] * len(config.parts)
        self._plan: Plan = self.source.plan()
        self._state = self._snapshot(self.served)
        self._begun: deque[_Begun] = deque()
        self._pool: list[ThreadPoolExecutor] = []
        weakref.finalize(self, _stop, self._pool)

    @property
    def epochs(self) -> dict[str, float]:
        """How often each part has been gone through, by its path; one named twice has a number from then on."""
        found: dict[str, float] = {}
        for number, (part, assigned) in enumerate(zip(self.config.parts, self.source.assigned, strict=True)):
            name = part.path if part.path not in found else f"{part.path}#{number}"
            found[name] = self.served[number] / int((assigned.of >= 0).sum())
        return found

    def __next__(self) -> Batch | PackedBatch:
        if not self._pool:
            self._pool.append(ThreadPoolExecutor(self.config.num_threads))
            self._plan = self.source.plan()
            self._plan.set_state(self._state["plan"])
        while len(self._begun) <= self.config.prefetch and self._begin():
            pass
        if not self._begun:
            raise StopIteration
        filling, rows, state = self._begun.popleft()
        try:
            for row in rows:
                row.result()
        except BaseException:
            self.close()  # the state is still that before this batch
            raise
        self._state, self.served = state, list(state["served"])
        return filling.batch()

    def _begin(self) -> bool:
        """Has the threads read one batch more; False when the plan is at its end."""
        batch = next(self._plan, None)
        if batch is None:
            return False
        served = list(self._begun[-1].state["served"] if self._begun else self.served)
        places = [place for row in batch for place in row]
        for place in places:
            served[self.source.mixture[place][0]] += 1
        here = [batch[row] for row in self._rows(len(batch))]
        filling = self._filler.empty(len(here), None if self.config.packing else self.source.shape(places[0]))
        rows = [self._pool[0].submit(self._filler.fill, filling, number, row) for number, row in enumerate(here)]
        self._begun.append(_Begun(filling, rows, self._snapshot(served)))
        return True

    def _snapshot(self, served: Sequence[int]) -> dict[str, Any]:
        return {"plan": self._plan.get_state(), "served": list(served), "of": self._identity}

    def get_state(self) -> dict[str, Any]:
        """Where the plan stands, and of what data; plain JSON. What was read ahead does not count."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on as the loader did whose state this is. ValueError when that one served other data."""
        if set(state) != {"plan", "served", "of"}:
            raise ValueError(f"Not the state of a loader: it has {sorted(state)}, not 'plan', 'served' and 'of'.")
        differing = sorted(key for key, value in self._identity.items() if state["of"].get(key) != value)
        if differing:
            raise ValueError(f"This loader cannot go on from a state of other data: {', '.join(differing)} differ.")
        self.close()
        self._state, self.served = state, list(state["served"])

    def close(self) -> None:
        """Stop reading ahead; the next batch starts it again."""
        self._begun.clear()
        _stop(self._pool)


def _stop(pool: list) -> None:  # of executors; runs at any time, where what checks items would draw one at random
    while pool:
        pool.pop().shutdown(wait=True, cancel_futures=True)


def _identity(source: ClipSource, texts: TextInput) -> dict[str, Any]:
    """What the sequence of batches depends on, in plain JSON."""
    shards = [[shard.sha256 for shard in each.manifest.shards] for each in source.sets]
    return json.loads(json.dumps(source.config.identity())) | {
        "weights": [part.weight for part in source.config.parts],
        "shards": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
        "texts": texts.identity,
        "order": ORDER,
    }
