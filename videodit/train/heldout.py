"""Held-out metrics and pictures of the averaged weights."""

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
from videodit.train.batch import Batch, HostBatch, local_indices, to_devices
from videodit.train.state import TrainState
from videodit.train.task import Task

SHOWN_CLIPS = 4  # of a picture
NOISE_STREAM = 2**32 - 1  # folded into the run's key for the noise of evaluations: no step has this number


class HeldOut:
    """A task on held-out batches, from the first one on at every evaluation.

    The noise is the same at every evaluation, so that two of them differ by the weights alone.

    Args:
        batches: held-out batches; an iterable that can be repeated.
        batch_sharding: where a batch goes.
        replicated: where metrics, and the clips of a picture, go: to every device.
    """

    def __init__(
        self,
        task: Task,
        graphdef: nnx.GraphDef,
        batches: Iterable[HostBatch],
        seed: int,
        batch_sharding: Sharding,
        replicated: Sharding,
    ):
        self._batches, self._sharding = batches, batch_sharding
        self._key = jax.random.fold_in(jax.random.key(seed), NOISE_STREAM)

        def sum_metrics(
            state: TrainState, frozen: PyTree, batch: Batch, key: RandomKey
        ) -> tuple[dict[str, Array], Array]:
            values = task.evaluate(_averaged(graphdef, state), frozen, batch, key)
            return {name: jnp.sum(v_B, where=batch.valid) for name, v_B in values.items()}, batch.valid.sum()

        def sample(state: TrainState, frozen: PyTree, batch: Batch, indices: Array, key: RandomKey) -> Array:
            selected = jax.lax.with_sharding_constraint(jax.tree.map(lambda x: x[indices], batch), replicated)
            return task.sample(_averaged(graphdef, state), frozen, selected, key)

        self._sum_metrics = jax.jit(sum_metrics, out_shardings=replicated)
        self._sample = jax.jit(sample, out_shardings=replicated)

    def metrics(self, state: TrainState, frozen: PyTree) -> dict[str, float]:
        """Compute the mean of every held-out metric over all clips, as `eval/NAME`.

        Raises:
            ValueError: when there is no batch.
        """
        total = None
        for index, host in enumerate(self._batches):
            batch = to_devices(host, self._sharding)
            part = self._sum_metrics(state, frozen, batch, jax.random.fold_in(self._key, index))
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        if total is None:
            raise ValueError("the evaluation data hold no batch: they must be an iterable that can be repeated")
        sums, count = jax.device_get(total)
        return {f"eval/{name}": float(value / count) for name, value in sums.items()}

    def picture(self, state: TrainState, frozen: PyTree) -> Image.Image:
        """Draw the first clips of the data that the main process has, each above what the task makes of it.

        In other processes the clips are their own, and the picture is not used.
        """
        host = next(iter(self._batches))
        batch = to_devices(host, self._sharding)
        indices = np.array(local_indices(batch.size, self._sharding, 0)[:SHOWN_CLIPS])
        samples = jax.device_get(self._sample(state, frozen, batch, indices, self._key))
        rows: list[np.ndarray] = []
        captions: list[str] = []
        for index, frames in enumerate(samples):
            if not np.any(host.arrays.valid[index]):
                continue  # padding: it has no caption and no frame rate
            if batch.video is not None:
                rows.append(to_float(host.arrays.video[index]))
                captions.append("")
            rows.append(frames)
            caption = host.captions[index]
            captions.append(caption if isinstance(caption, str) else caption[0])  # of a packed sequence the first
        return contact_sheet(rows, captions)


def _averaged(graphdef: nnx.GraphDef, state: TrainState) -> nnx.Module:
    return nnx.merge(graphdef, state.params if state.ema is None else state.ema, state.buffers)
