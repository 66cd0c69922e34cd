"""What is trained, behind one protocol: one loop, one step and one checkpointer serve all tasks."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from videodit.nn.state import abstract_arrays, split_model
from videodit.registry import Registry
from videodit.shapes import RandomKey
from videodit.train.batch import Batch

PerClipValues = dict[str, Float[Array, "B ..."]]
"""Numbers for every clip of a batch, by name: [B], or [B, K] where rows hold up to K clips."""


@runtime_checkable
class Task(Protocol):
    """What is trained, and by which loss. Everything but `init` and `frozen_arrays` is a pure function to compile.

    Attributes:
        tokens_per_clip: latent positions or tokens of a clip.
        flops_per_clip: FLOPs of training on one clip, counting what is trained; None if unknown.
    """

    tokens_per_clip: int
    flops_per_clip: float | None

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """Build a fresh model; its `nnx.Param` variables are what is trained."""
        ...

    def frozen_arrays(self) -> PyTree:
        """Return the frozen arrays that the loss uses; None if there are none."""
        ...

    def frozen_shardings(self, mesh: Mesh) -> PyTree:
        """Return the shapes of those arrays, with their shardings on a mesh."""
        ...

    def draw(self, batch: Batch, key: RandomKey) -> PyTree[Array]:
        """Draw all the randomness of a step, with the batch first in every array, so that it can be cut like it."""
        ...

    def loss(
        self, model: nnx.Module, frozen: PyTree, batch: Batch, draws: PyTree
    ) -> tuple[Float[Array, "B ..."], PerClipValues]:
        """Return one loss for every clip, and other numbers for every clip that are worth logging."""
        ...

    def evaluate(self, model: nnx.Module, frozen: PyTree, batch: Batch, key: RandomKey) -> PerClipValues:
        """Return held-out numbers for every clip, repeatable for a given key."""
        ...

    def sample(self, model: nnx.Module, frozen: PyTree, batch: Batch, key: RandomKey) -> Float[Array, "B T Y X 3"]:
        """Return clips in [-1, 1] to be shown beside those of the batch."""
        ...


TASKS: Registry[type[Task]] = Registry("task", "videodit.train.tasks")
"""Tasks by the `kind` of their runs.

A task is built from its run, the frozen models that `required_models(run)` names, and, where the data carry embeddings,
those of the empty caption.
"""


class FrozenModels:
    """Frozen models and arrays that a loss uses: handed to the step beside the state, never saved with it.

    Args:
        models: by name; models of shapes alone (`nn.state.abstract_module`) will do for tracing.
        arrays: further arrays, by name and name.
    """

    def __init__(self, models: Mapping[str, nnx.Module], arrays: Mapping[str, Mapping[str, np.ndarray]] | None = None):
        self._models, self._extra = dict(models), dict(arrays or {})
        self._graphdefs = {name: split_model(model)[0] for name, model in self._models.items()}

    def arrays(self) -> dict[str, PyTree]:
        """Return the arrays of all models, by name."""
        return {name: split_model(model)[1:] for name, model in self._models.items()} | self._extra

    def shardings(self, mesh: Mesh) -> dict[str, PyTree]:
        """Return the shapes of those arrays, with their shardings on a mesh."""
        replicated = NamedSharding(mesh, PartitionSpec())
        models = {name: abstract_arrays(model, mesh)[1:] for name, model in self._models.items()}
        return models | jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), self._extra)

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def merge(self, name: str, arrays: Mapping[str, PyTree]) -> nnx.Module:
        """Return a model of the arrays that a step was given."""
        return nnx.merge(self._graphdefs[name], *arrays[name])
