"""Which mesh axes divide a tensor dimension: one table, and the shardings made from it."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    # Tokens of a row inside attention and MLP; and in the residual stream between those, where heads are not at hand.
    "tokens": ("ring", "ulysses"),
    "stream": ("ring", "ulysses", "tensor"),
    "height": ("ring", "ulysses"),
    "width": ("ring", "ulysses"),
    # Of parameters alone: whoever shares tokens of one batch can share these too.
    "embed": ("fsdp", "ring", "ulysses"),
    "layer": (),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "head_dim": (),
    "text": (),
    "vocab": (),
    "patch": (),
    "time_freq": (),
    "modulation": (),
    "conv_in": (),
    "conv_out": (),
}
"""Logical dimension to the mesh axes that divide it, outermost first. A dimension named None is never divided."""

Dims = Sequence[str | None]


def mesh_axes(dims: Dims) -> tuple[tuple[str, ...], ...]:
    """The mesh axes that divide each dimension of an array.

    Raises:
        ValueError: for a name that the table lacks, and when two dimensions of the array want the same mesh axis.
    """
    owner: dict[str, str | None] = {}
    axes_of = []
    for dim in dims:
        if dim is not None and dim not in RULES:
            raise ValueError(f"no rule for the dimension {dim!r} of {tuple(dims)}; known are {', '.join(RULES)}")
        axes = () if dim is None else RULES[dim]
        for axis in axes:
            if axis in owner:
                raise ValueError(
                    f"dimensions {owner[axis]!r} and {dim!r} of {tuple(dims)} both want mesh axis {axis!r}"
                )
            owner[axis] = dim
        axes_of.append(axes)
    return tuple(axes_of)


def mesh_in_force() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`; None where there is none, or one of a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def parts(dim: str, mesh: Mesh | AbstractMesh | None = None) -> int:
    """Into how many parts a dimension is divided on a mesh, that in force by default; without a mesh, 1."""
    mesh = mesh or mesh_in_force()
    return 1 if mesh is None else _parts(RULES[dim], mesh)


def sharding_for(dims: Dims, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> NamedSharding:
    """How an array of `shape` with these dimension names lies on the mesh.

    Raises:
        ValueError: as `mesh_axes`, and when a dimension is not a multiple of the mesh axes that divide it.
    """
    if len(dims) != len(shape):
        raise ValueError(f"an array of shape {tuple(shape)} cannot have the dimensions {tuple(dims)}")
    axes_of = mesh_axes(dims)
    for dim, size, axes in zip(dims, shape, axes_of, strict=True):
        n = _parts(axes, mesh)
        if size % n:
            names = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes if mesh.shape[axis] > 1)
            fits = " or ".join(str(k * n) for k in (size // n, size // n + 1) if k)
            fewer = next(k for k in range(n - 1, 0, -1) if size % k == 0)
            raise ValueError(
                f"dimension {dim!r} of size {size} does not divide over mesh axes {names}; {fits} would, "
                f"or {size} over {fewer}"
            )
    return NamedSharding(mesh, PartitionSpec(*(axes or None for axes in axes_of)))


def spec(dims: Dims, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """As `sharding_for`, but that a dimension which does not divide evenly is whole: activations of few clips."""
    sizes = zip(mesh_axes(dims), shape, strict=True)
    return PartitionSpec(*(axes if axes and size % _parts(axes, mesh) == 0 else None for axes, size in sizes))


def shard_tree(tree: PyTree, mesh: Mesh) -> PyTree:
    """A sharding for every array of a tree, in the tree's own structure.

    Variables with the metadata `dims` follow the rules, an optimiser's moments included since they are made by mapping
    over the parameters. Everything else (counters, keys, statistics) is copied to every device.

    Args:
        tree: arrays or `jax.ShapeDtypeStruct`s, as in an abstract state.

    Raises:
        ValueError: as `sharding_for`, with the path of the array.
    """

    def shard(path: tuple[Any, ...], node: Any) -> Any:
        dims = node.get_metadata().get("dims") if isinstance(node, nnx.Variable) else None
        if dims is None:
            return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), node)
        try:
            return jax.tree.map(lambda leaf: sharding_for(dims, leaf.shape, mesh), node)
        except ValueError as error:
            raise ValueError(f"{jax.tree_util.keystr(path)}: {error}") from None

    return jax.tree_util.tree_map_with_path(shard, tree, is_leaf=lambda node: isinstance(node, nnx.Variable))


def constrain(x: Array, dims: Dims) -> Array:
    """`x`, laid out by the rules on the mesh in force (`jax.set_mesh`); without several devices, `x` itself.

    A dimension that does not divide evenly stays whole: few clips may be sampled on many devices.
    """
    mesh = mesh_in_force()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(dims, x.shape, mesh)))


def gather(x: Array, dims: Dims, dtype: Any) -> Array:
    """A parameter in `dtype`, as the layers compute with it: put together along what "embed" divides, when it is used.

    Its gradient is divided again as it is summed over the devices (FSDP).
    """
    if mesh_in_force() is None:
        return x.astype(dtype)
    return _gather(x, tuple(dims), jnp.dtype(dtype), x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(x: Array, dims: tuple[str | None, ...], dtype: Any, stored: Any) -> Array:
    return constrain(constrain(_as_stored(x).astype(dtype), dims), [None if dim == "embed" else dim for dim in dims])


def _gather_fwd(x: Array, dims: tuple[str | None, ...], dtype: Any, stored: Any) -> tuple[Array, None]:
    return _gather(x, dims, dtype, stored), None


def _gather_bwd(dims: tuple[str | None, ...], dtype: Any, stored: Any, _: None, gradient: Array) -> tuple[Array]:
    return (scatter(gradient, dims, stored),)


def scatter(gradient: Array, dims: Dims, dtype: Any) -> Array:
    """The gradient of a gathered parameter, summed in the type that it comes in, as the parameter lies, in `dtype`."""
    return _as_stored(constrain(gradient, dims).astype(dtype))


def _as_stored(x: Array) -> Array:
    """In the layout of arguments: else XLA copies all layers of a stack to the layout that suits a layer."""
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


_gather.defvjp(_gather_fwd, _gather_bwd)


def per_device(fn: Callable[..., PyTree], dims: PyTree, out: Dims) -> Callable[..., PyTree]:
    """`fn`, called on every device with its own part of the arguments; for what the compiler cannot divide by itself.

    Args:
        fn: gives for parts what is that part of its result.
        dims: the dimension names of every argument, None for one that is absent.
        out: those of every array of the result.

    The parts are as the rules divide them on the mesh in force; a dimension that does not divide evenly stays whole.
    Without a mesh of several devices, `fn` itself.
    """
    mesh = mesh_in_force()
    if mesh is None:
        return fn

    def run(*args: Array | None) -> PyTree:
        specs = tuple(None if x is None else spec(names, x.shape, mesh) for x, names in zip(args, dims, strict=True))
        outs = jax.tree.map(lambda x: spec(out, x.shape, mesh), jax.eval_shape(fn, *args))
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=outs, check_vma=False)(*args)

    return run


def _parts(axes: Sequence[str], mesh: Mesh | AbstractMesh) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)
