"""A model as its structure and nested dicts of arrays, and where on the devices those arrays lie."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import PyTree

from videodit.nn.param import matrix_axes
from videodit.parallel.rules import shard_tree

ModelInit = Callable[[nnx.Rngs], nnx.Module]
Arrays = dict[str, PyTree]
"""Nested dicts of arrays, or of their shapes, by the names of a model's attributes."""


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Return a model's structure, its parameters and its other variables (buffers).

    `nnx.merge` of the three is the model again.
    """
    graphdef, params, buffers = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(buffers)


def abstract_module(init: ModelInit) -> nnx.Module:
    """Build a model of shapes in place of arrays; nothing is allocated."""
    return nnx.eval_shape(lambda: init(nnx.Rngs(0)))


def abstract_arrays(model: nnx.Module, mesh: Mesh | None) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Return a model's structure, and the shapes of its parameters and buffers with their shardings.

    Args:
        model: of arrays or of shapes (`abstract_module`).
        mesh: the devices; None is the first device, or all devices of several processes.
    """
    graphdef, *variables = nnx.split(model, nnx.Param, ...)

    def with_shardings(state: PyTree) -> Arrays:
        shapes = nnx.to_pure_dict(state)
        if mesh is None:
            return jax.tree.map(lambda x: with_sharding(x, _default_sharding()), shapes)
        return jax.tree.map(with_sharding, shapes, nnx.to_pure_dict(shard_tree(state, mesh)))

    params, buffers = map(with_shardings, variables)
    return graphdef, params, buffers


def matrix_axes_of(model: nnx.Module) -> Arrays:
    """Return the input and output axes of a model's matrices and convolutions, None for its other parameters."""
    return nnx.to_pure_dict(matrix_axes(nnx.state(model, nnx.Param)))


def shardings_of(tree: PyTree) -> PyTree:
    """Return the shardings of the leaves of a tree of shapes or arrays."""
    return jax.tree.map(lambda x: x.sharding, tree)


def dotted_path(path: tuple[Any, ...]) -> str:
    """Return the dotted path of a leaf of a model's arrays; the first key, of a list of trees, is left out."""
    return ".".join(str(key.key) for key in path[1:])


def with_sharding(x: jax.Array | np.ndarray | jax.ShapeDtypeStruct, sharding: Sharding) -> jax.ShapeDtypeStruct:
    """Return the shape and type of an array, with a sharding."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _default_sharding() -> Sharding:
    devices = jax.devices()
    if jax.process_count() == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(jax.make_mesh((len(devices),), ("all",), devices=devices), PartitionSpec())
