"""Parameters: arrays with logical names of their dimensions."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, PyTree

from videodit.parallel.rules import gather_array
from videodit.shapes import RandomKey

Dims = tuple[str | None, ...]
Init = Callable[..., jax.Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers


def param(
    key: RandomKey, init: Init, shape: Sequence[int], dims: Dims, dtype: DTypeLike = jnp.float32, *, inputs: int = 0
) -> nnx.Param:
    """Make a parameter whose dimensions have logical names, kept as the metadata `dims`.

    Args:
        key: randomness for `init`.
        init: an initialiser of `jax.nn.initializers`' kind.
        shape: the sizes.
        dims: a name for every dimension, None where it has none; `videodit.parallel.rules` maps names to mesh axes.
        dtype: storage type. Parameters are float32 unless there is a reason.
        inputs: of the matrix of a linear map, how many leading dimensions are its inputs; 0 for all else.

    Raises:
        ValueError: when `dims` does not name every dimension.
    """
    if len(dims) != len(shape):
        raise ValueError(f"a parameter of shape {tuple(shape)} needs {len(shape)} dimension names, got {dims}")
    return nnx.Param(init(key, tuple(shape), dtype), dims=dims, inputs=inputs)


def gather_param(variable: nnx.Variable, dtype: DTypeLike | None = None) -> Array:
    """Return the value of a parameter in `dtype`, its own by default, gathered from the devices that shard it."""
    value = variable[...]
    return gather_array(value, variable.get_metadata()["dims"], value.dtype if dtype is None else dtype)


def is_variable(node: object) -> bool:
    """Return whether a node of a state's tree is an `nnx.Variable`, for `is_leaf`."""
    return isinstance(node, nnx.Variable)


def get_dims(state: PyTree) -> PyTree:
    """Return the tree of a state's dimension names: every variable replaced by its `dims`, or None if it has none.

    The names are tuples, which JAX takes for branches: pass `is_leaf=lambda d: isinstance(d, tuple)` when mapping.
    """
    return jax.tree.map(lambda v: v.get_metadata().get("dims"), state, is_leaf=is_variable)


def matrix_axes(state: PyTree) -> PyTree:
    """Return the input and output axes of every variable that is the matrix of a linear map; None for all others.

    The axis that stacks a matrix over layers is neither. The axes are tuples: see `get_dims` about mapping over them.
    """

    def axes(variable: nnx.Variable) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        metadata = variable.get_metadata()
        if not metadata.get("inputs"):
            return None
        first = int(metadata["dims"][0] == "layer")
        middle, last = first + metadata["inputs"], len(metadata["dims"])
        return tuple(range(first, middle)), tuple(range(middle, last))

    return jax.tree.map(axes, state, is_leaf=is_variable)


def prepend_dim(state: PyTree, name: str) -> PyTree:
    """Prepend `name` to the dimension names of every variable, as after `jax.vmap` of an initialiser."""
    return _rename_dims(state, lambda dims: (name, *dims))


def drop_dim(state: PyTree) -> PyTree:
    """Drop the first dimension name of every variable, as inside of a loop over that dimension."""
    return _rename_dims(state, lambda dims: dims[1:])


def _rename_dims(state: PyTree, rename: Callable[[Dims], Dims]) -> PyTree:
    def rename_variable(variable: nnx.Variable) -> nnx.Variable:
        copy = variable.replace(variable.get_raw_value())
        copy.set_metadata(dims=rename(variable.get_metadata()["dims"]))
        return copy

    return jax.tree.map(rename_variable, state, is_leaf=is_variable)
