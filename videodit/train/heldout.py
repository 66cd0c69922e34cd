"""Held-out numbers and pictures of the averaged weights."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding
from jaxtyping import Array, PyTree
from PIL import Image

from videodit.inference.contact_sheet import contact_sheet
from videodit.models.pixels import to_float
from videodit.shapes import RandomKey
from videodit.train.batch import Batch, HostBatch, rows_of, to_devices
from videodit.train.state import TrainState
from videodit.train.tasks import Task

SHOWN = 4  # clips of a picture
NOISE = 2**32 - 1  # where in the run's randomness the noise of evaluations lies: no step has this number


class HeldOut:
    """A task on held-out batches, which are gone through from the start every time.

    The noise is the same at every evaluation, so that two of them differ by the weights alone.

    Args:
        data: batches; an iterable that can be gone through again.
        rows: where a batch goes. whole: where numbers, and the clips of a picture, go: all to every device.
    """

    def __init__(
        self,
        task: Task,
        graphdef: nnx.GraphDef,
        data: Iterable[HostBatch],
        seed: int,
        rows: Sharding,
        whole: Sharding,
    ):
        self._data, self._rows = data, rows
        self._key = jax.random.fold_in(jax.random.key(seed), NOISE)

        def sums(state: TrainState, frozen: PyTree, batch: Batch, key: RandomKey) -> tuple[dict[str, Array], Array]:
            values = task.evaluate(_averaged(graphdef, state), frozen, batch, key)
            return {name: jnp.sum(v_B, where=batch.real) for name, v_B in values.items()}, batch.real.sum()

        def sample(state: TrainState, frozen: PyTree, batch: Batch, shown: Array, key: RandomKey) -> Array:
            few = jax.lax.with_sharding_constraint(jax.tree.map(lambda x: x[shown], batch), whole)
            return task.sample(_averaged(graphdef, state), frozen, few, key)

        self._sums, self._sample = jax.jit(sums, out_shardings=whole), jax.jit(sample, out_shardings=whole)

    def metrics(self, state: TrainState, frozen: PyTree) -> dict[str, float]:
        """The mean of every held-out number over all clips, as `eval/NAME`.

        Raises:
            ValueError: when there is no batch.
        """
        total = None
        for index, host in enumerate(self._data):
            batch = to_devices(host, self._rows)
            part = self._sums(state, frozen, batch, jax.random.fold_in(self._key, index))
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        if total is None:
            raise ValueError("the evaluation data hold no batch: they must be an iterable that can be repeated")
        sums, count = jax.device_get(total)
        return {f"eval/{name}": float(value / count) for name, value in sums.items()}

    def picture(self, state: TrainState, frozen: PyTree) -> Image.Image:
        """The first clips of the data that the first process holds, each above what the task makes of it.

        In other processes the clips are theirs, and not those shown.
        """
        host = next(iter(self._data))
        batch = to_devices(host, self._rows)
        shown = np.array(rows_of(batch.size, self._rows, 0)[:SHOWN])
        made = jax.device_get(self._sample(state, frozen, batch, shown, self._key))
        rows: list[np.ndarray] = []
        captions: list[str] = []
        for index, frames in enumerate(made):
            if not np.any(host.real[index]):
                continue  # a row that only fills up the batch: it has no caption and no frame rate
            if batch.video is not None:
                rows.append(to_float(host.video[index]))
                captions.append("")
            rows.append(frames)
            caption = host.captions[index]
            captions.append(caption if isinstance(caption, str) else caption[0])  # of a packed row the first
        return contact_sheet(rows, captions)


def _averaged(graphdef: nnx.GraphDef, state: TrainState) -> nnx.Module:
    return nnx.merge(graphdef, state.params if state.ema is None else state.ema, state.buffers)
