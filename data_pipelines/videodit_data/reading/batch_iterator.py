"""Batches of captioned clips: shuffled, mixed, divided over processes, decoded on threads, resumable at any batch.

The order of clips, epoch after epoch, is one global sequence fixed by the seed (`mixture`), every random draw of a clip
is fixed by its position there, and plans (`batch_plan`) make batches of it from sizes alone. So the data of a step
depend neither on the number of processes nor on that of threads, and the state is that of the plan.

Clips are decoded straight into the memory of their batch: what Grain's readers would copy once more, or twice.
"""

import hashlib
import json
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from videodit_data.boundary.typed_json import Count, convert, shorten, show_key
from videodit_data.reading.batch import HostBatch
from videodit_data.reading.batch_builder import BatchBuilder, PartialBatch
from videodit_data.reading.batch_plan import Plan
from videodit_data.reading.clip_source import ClipSource
from videodit_data.reading.mixture import ORDER
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TextInput

LocalBatchIndices = Callable[[int], Sequence[int]]  # of a batch's size: the entries that this process serves, in order


class _Pending(NamedTuple):
    """A batch that is being read, and the iterator's state after it."""

    batch: PartialBatch
    entries: list[Future[None]]
    state: dict[str, Any]


@dataclass(frozen=True)
class _PlanState:
    """The next position, and those before it that no batch has had room for."""

    next: Count
    held: tuple[Count, ...]


@dataclass(frozen=True)
class _State:
    """The state of a reader: of its plan, clips served of each data set, the identity of its data."""

    plan: _PlanState
    served: tuple[Count, ...]
    of: dict[str, object]


class BatchIterator(Iterator[HostBatch]):
    """Batches, from the first on or from a saved state on.

    Clips that fit no shape are not served: they are logged, and `source.assignments` counts them by reason.

    Attributes:
        source: the clips.
        clips_served: number of clips that came of each data set.

    Args:
        local_batch_indices: of a batch's size, the entries that this process serves; all by default.
        check: called before every batch; what it raises is raised in place of the batch.

    Raises:
        ValueError: as `ClipSource`.
    """

    def __init__(
        self,
        config: ReaderConfig,
        text_input: TextInput,
        *,
        local_batch_indices: LocalBatchIndices = range,
        check: Callable[[], None] = lambda: None,
    ):
        self.config, self.source, self._check = config, ClipSource(config), check
        self._builder, self._local_batch_indices = BatchBuilder(self.source, text_input), local_batch_indices
        self._identity = _identity(self.source, text_input)
        self.clips_served = [0] * len(config.datasets)
        self._plan: Plan = self.source.plan()
        self._state = self._snapshot(self.clips_served)
        self._pending: deque[_Pending] = deque()
        self._executors: list[ThreadPoolExecutor] = []
        weakref.finalize(self, _shut_down, self._executors)

    @property
    def epochs(self) -> dict[str, float]:
        """Return the epochs of each data set so far, by its path; a repeated path has a number."""
        epochs: dict[str, float] = {}
        for index, (dataset, assignment) in enumerate(zip(self.config.datasets, self.source.assignments, strict=True)):
            name = dataset.path if dataset.path not in epochs else f"{dataset.path}#{index}"
            epochs[name] = self.clips_served[index] / assignment.num_served
        return epochs

    def __next__(self) -> HostBatch:
        self._check()
        if not self._executors:
            self._executors.append(ThreadPoolExecutor(self.config.num_threads))
            self._plan = self.source.plan()
            self._plan.set_state(self._state["plan"])
        while len(self._pending) <= self.config.prefetch and self._start_batch():
            pass
        if not self._pending:
            raise StopIteration
        batch, entries, state = self._pending.popleft()
        try:
            for entry in entries:
                entry.result()
        except BaseException:
            self.close()  # the state is still that before this batch
            raise
        self._state, self.clips_served = state, list(state["served"])
        return batch.finish()

    def _start_batch(self) -> bool:
        """Start reading one more batch on the threads; returns False when the plan has ended."""
        entries = next(self._plan, None)
        if entries is None:
            return False
        clips_served = list(self._pending[-1].state["served"] if self._pending else self.clips_served)
        positions = [position for entry in entries for position in entry]
        for position in positions:
            clips_served[self.source.mixture[position][0]] += 1
        local = [entries[index] for index in self._local_batch_indices(len(entries))]
        batch = self._builder.allocate(len(local), None if self.config.packing else self.source.bucket(positions[0]))
        submit = self._executors[0].submit
        futures = [submit(self._builder.fill, batch, index, entry) for index, entry in enumerate(local)]
        self._pending.append(_Pending(batch, futures, self._snapshot(clips_served)))
        return True

    def _snapshot(self, clips_served: Sequence[int]) -> dict[str, Any]:
        return {"plan": self._plan.get_state(), "served": list(clips_served), "of": self._identity}

    def get_state(self) -> dict[str, Any]:
        """Return the state of the plan and the identity of its data, as plain JSON. Batches read ahead do not count."""
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        """Resume from a state of `get_state`.

        Raises:
            ValueError: when it is of other data.
        """
        if not isinstance(state, dict) or set(state) != {"plan", "served", "of"}:
            keys = ", ".join(map(show_key, sorted(map(str, state)))) if isinstance(state, dict) else shorten(state)
            raise ValueError(f"Not the state of a reader: it has {keys}, not 'plan', 'served' and 'of'.")
        typed = convert(state, _State, "Not the state of a reader")
        names = {*self._identity, *state["of"]}
        differing = sorted(name for name in names if state["of"].get(name) != self._identity.get(name))
        if differing:
            raise ValueError(
                f"This reader cannot resume from a state of other data: {', '.join(map(show_key, differing))} differ."
            )
        self._check_positions(typed)
        self.close()
        self._state, self.clips_served = state, list(state["served"])

    def _check_positions(self, state: "_State") -> None:
        """Check that a state can be one of these data sets. ValueError if not."""
        if len(state.served) != len(self.config.datasets):
            sets = len(self.config.datasets)
            raise ValueError(f"Not the state of a reader of {sets} data sets: served is a list of {len(state.served)}.")
        length, held = self.source.mixture.length, state.plan.held
        if len(set(held)) < len(held):
            raise ValueError("Not the state of a reader: plan.held has a clip twice.")
        if length is not None and state.plan.next > length:
            raise ValueError(f"Not the state of a reader of {length} clips: plan.next is {state.plan.next}.")
        if held and max(held) >= state.plan.next:
            raise ValueError(f"Not the state of a reader: plan.held has {max(held)}, beyond next, {state.plan.next}.")

    def close(self) -> None:
        """Stop reading ahead; the next batch starts it again."""
        self._pending.clear()
        _shut_down(self._executors)


def _shut_down(executors: list) -> None:  # runs at any time, where a check of items would draw one at random
    while executors:
        executors.pop().shutdown(wait=True, cancel_futures=True)


def _identity(source: ClipSource, text_input: TextInput) -> dict[str, Any]:
    """Return all settings that the sequence of batches depends on, as plain JSON."""
    shards = [[shard.sha256 for shard in each.manifest.shards] for each in source.datasets]
    return json.loads(json.dumps(source.config.identity())) | {
        "weights": [each.weight for each in source.config.datasets],
        "shards": hashlib.sha256(json.dumps(shards).encode()).hexdigest(),
        "texts": text_input.identity,
        "order": ORDER,
    }
