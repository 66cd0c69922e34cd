"""Everything that a step changes, as one pytree of arrays, and how it comes to be on the mesh."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from videodit.nn.param import matrix_axes
from videodit.parallel.rules import shard_tree
from videodit.shapes import RandomKey
from videodit.train.precision import Stored

Init = Callable[[nnx.Rngs], nnx.Module]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of training. Its leaves are arrays, or their shapes and shardings where nothing is allocated.

    step: int32 scalar, updates made so far.
    params, ema: nested dicts of parameters, and their moving average in float32 or None.
    opt_state: the optimiser's.
    buffers: the model's variables that are not trained; the step carries them along.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    buffers: Any


def split(model: nnx.Module) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """A model as its structure, its parameters and its other variables, both nested dicts of arrays.

    `nnx.merge` of the three is the model again.
    """
    graphdef, params, buffers = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(buffers)


def shapes_of(init: Init) -> nnx.Module:
    """A model of shapes in place of arrays; no allocation."""
    return nnx.eval_shape(lambda: init(nnx.Rngs(0)))


def matrices(model: nnx.Module) -> dict[str, Any]:
    """Input and output axes of a model's matrices and convolutions, None for its other parameters (`matrix_axes`)."""
    return nnx.to_pure_dict(matrix_axes(nnx.state(model, nnx.Param)))


def abstract_model(model: nnx.Module, mesh: Mesh | None) -> tuple[nnx.GraphDef, Any, Any]:
    """The structure of a model, and the shapes of its parameters and other variables with their places.

    model: of shapes (`shapes_of`). mesh: where it will be; None is the first device, or all of several processes.
    """
    graphdef, *variables = nnx.split(model, nnx.Param, ...)

    def placed(state: Any) -> Any:
        shapes = nnx.to_pure_dict(state)
        if mesh is None:
            return jax.tree.map(lambda x: _at(x, _at_hand()), shapes)
        return jax.tree.map(_at, shapes, nnx.to_pure_dict(shard_tree(state, mesh)))

    return graphdef, *map(placed, variables)


def abstract_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    stored: Stored = "float32",
    average: bool = True,
) -> tuple[nnx.GraphDef, TrainState]:
    """The structure of a model of shapes, and the state as shapes with their places on the mesh; no allocation.

    The optimiser's moments lie where their parameters lie; what has no parameter is on every device.

    stored: type of the parameters; their average is float32. average: whether there is one.
    """
    graphdef, params, buffers = abstract_model(model, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    by_path = {path: param for path, param in jax.tree.leaves_with_path(params)}

    def placed(path: tuple[Any, ...], x: Any) -> jax.ShapeDtypeStruct:
        # A moment's path in the state ends in its parameter's; only a moment has a path that does.
        ends = (path[start:] for start in range(len(path)))
        param = next((by_path[end] for end in ends if end in by_path), None)
        return _at(x, whole if param is None else _place_like(param, x.shape))

    held = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(stored), sharding=x.sharding), params)
    opt_state = jax.tree.map_with_path(placed, jax.eval_shape(optimizer.init, held))
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return graphdef, TrainState(step, held, params if average else None, opt_state, buffers)


def _place_like(param: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> NamedSharding:
    """That of a moment: its parameter's, less the dimension that a factored one lacks; whole if that is unclear."""
    spec, rank = tuple(param.sharding.spec), len(param.shape)
    if shape == param.shape:
        return param.sharding
    lacking = {spec[:i] + spec[i + 1 :] for i in range(rank) if param.shape[:i] + param.shape[i + 1 :] == shape}
    return NamedSharding(param.sharding.mesh, PartitionSpec(*(lacking.pop() if len(lacking) == 1 else ())))


def shardings_of(abstract: Any) -> Any:
    """The places of the leaves of a tree of shapes or arrays."""
    return jax.tree.map(lambda x: x.sharding, abstract)


def init_state(
    init: Init,
    optimizer: optax.GradientTransformation,
    abstract: TrainState,
    key: RandomKey,
    given: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """A fresh state, computed where `abstract` says that it belongs. The average starts at the parameters.

    given: values of parameters and other variables by dotted path, in place of random ones; they are consumed.
    """

    def fresh(key: RandomKey, given: Mapping[str, jax.Array]) -> TrainState:
        _, *variables = split(init(nnx.Rngs(key)))
        params, buffers = jax.tree.map_with_path(lambda path, x: given.get(dotted(path), x).astype(x.dtype), variables)
        held = jax.tree.map(lambda x, like: x.astype(like.dtype), params, abstract.params)
        average = None if abstract.ema is None else params
        return TrainState(jnp.zeros((), jnp.int32), held, average, optimizer.init(held), buffers)

    # XLA on CPU takes minutes to optimise the many small random generators of an init, which runs once.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    made = jax.jit(fresh, donate_argnums=1, out_shardings=shardings_of(abstract), compiler_options=options)
    return made(key, dict(given or {}))


def dotted(path: tuple[Any, ...]) -> str:
    """The path of a leaf of a model's parameters, as of `init_state`; the first key, of a list of trees, left out."""
    return ".".join(str(key.key) for key in path[1:])


def _at_hand() -> Sharding:
    devices = jax.devices()
    if jax.process_count() == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(jax.make_mesh((len(devices),), ("all",), devices=devices), PartitionSpec())


def _at(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
