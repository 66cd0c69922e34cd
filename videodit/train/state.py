"""Everything that a step changes, as one pytree of arrays, and how it comes to be on the mesh."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree

from videodit.config.optim import Stored
from videodit.nn.state import ModelInit, abstract_arrays, dotted_path, shardings_of, split_model, with_sharding
from videodit.pytrees import register_arrays
from videodit.shapes import RandomKey

ArrayT = TypeVar("ArrayT")


@register_arrays
@dataclass(frozen=True)
class TrainState(Generic[ArrayT]):
    """The state of training, generic over arrays, their shapes (with shardings) and their shardings.

    Attributes:
        step: updates made so far.
        params: the trained parameters, nested dicts.
        ema: their moving average in float32, or None.
        opt_state: the optimizer's state.
        buffers: the model's variables that are not trained; the step carries them along.
    """

    step: Int[ArrayT, ""]
    params: PyTree[ArrayT]
    ema: PyTree[ArrayT] | None
    opt_state: PyTree[ArrayT]
    buffers: PyTree[ArrayT]


def abstract_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    stored: Stored = "float32",
    average: bool = True,
) -> tuple[nnx.GraphDef, TrainState[jax.ShapeDtypeStruct]]:
    """Return the structure of a model of shapes, and the state as shapes with shardings; nothing is allocated.

    The optimizer's moments are sharded like their parameters; what belongs to no parameter is on every device.

    Args:
        stored: type of the parameters; their average is float32.
        average: whether there is an average.
    """
    graphdef, params, buffers = abstract_arrays(model, mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    by_path = {path: param for path, param in jax.tree.leaves_with_path(params)}

    def shard_moment(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # A moment's path in the state ends in its parameter's; only a moment has a path that does.
        ends = (path[start:] for start in range(len(path)))
        param = next((by_path[end] for end in ends if end in by_path), None)
        return with_sharding(x, replicated if param is None else _moment_sharding(param, x.shape))

    trained = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(stored), sharding=x.sharding), params)
    opt_state = jax.tree.map_with_path(shard_moment, jax.eval_shape(optimizer.init, trained))
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    return graphdef, TrainState(step, trained, params if average else None, opt_state, buffers)


def _moment_sharding(param: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> NamedSharding:
    """Return the parameter's sharding, less the dimension that a factored moment lacks; replicated if unclear."""
    spec, rank = tuple(param.sharding.spec), len(param.shape)
    if shape == param.shape:
        return param.sharding
    lacking = {spec[:i] + spec[i + 1 :] for i in range(rank) if param.shape[:i] + param.shape[i + 1 :] == shape}
    return NamedSharding(param.sharding.mesh, PartitionSpec(*(lacking.pop() if len(lacking) == 1 else ())))


def init_state(
    init: ModelInit,
    optimizer: optax.GradientTransformation,
    abstract: TrainState[jax.ShapeDtypeStruct],
    key: RandomKey,
    initial_params: Mapping[str, jax.Array] | None = None,
) -> TrainState[jax.Array]:
    """Compute a fresh state, sharded as `abstract` says. The average starts at the parameters.

    Args:
        initial_params: values of parameters and buffers by dotted path, in place of random ones; they are consumed.
    """

    def fresh(key: RandomKey, initial_params: Mapping[str, jax.Array]) -> TrainState[jax.Array]:
        _, *variables = split_model(init(nnx.Rngs(key)))
        params, buffers = jax.tree.map_with_path(
            lambda path, x: initial_params.get(dotted_path(path), x).astype(x.dtype), variables
        )
        trained = jax.tree.map(lambda x, like: x.astype(like.dtype), params, abstract.params)
        average = None if abstract.ema is None else params
        return TrainState(jnp.zeros((), jnp.int32), trained, average, optimizer.init(trained), buffers)

    # XLA on CPU takes minutes to optimize the many small random generators of an init, which runs once.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    compiled = jax.jit(fresh, donate_argnums=1, out_shardings=shardings_of(abstract), compiler_options=options)
    return compiled(key, dict(initial_params or {}))
