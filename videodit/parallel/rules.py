"""The table from logical dimensions to mesh axes, and the shardings that follow from it."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, PyTree

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    # Tokens of a sequence inside attention and MLP; and in the residual stream between those.
    "tokens": ("ring", "ulysses"),
    "stream": ("ring", "ulysses", "tensor"),
    "height": ("ring", "ulysses"),
    "width": ("ring", "ulysses"),
    # Of parameters alone: devices that share tokens of one batch can share these too.
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
    """Return the mesh axes that divide each dimension of an array.

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


def current_mesh() -> AbstractMesh | None:
    """Return the mesh of `jax.set_mesh`; None where there is none, or one of a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def count_shards(dim: str, mesh: Mesh | AbstractMesh | None = None) -> int:
    """Count the shards of a dimension on a mesh, the current one by default; without a mesh, 1."""
    mesh = mesh or current_mesh()
    return 1 if mesh is None else _axes_size(RULES[dim], mesh)


def sharding_for(dims: Dims, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Return the sharding of an array of `shape` with these dimension names.

    Raises:
        ValueError: as `mesh_axes`, and when a dimension is not a multiple of the mesh axes that divide it.
    """
    if len(dims) != len(shape):
        raise ValueError(f"an array of shape {tuple(shape)} cannot have the dimensions {tuple(dims)}")
    axes_of = mesh_axes(dims)
    for dim, size, axes in zip(dims, shape, axes_of, strict=True):
        n = _axes_size(axes, mesh)
        if size % n:
            names = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes if mesh.shape[axis] > 1)
            fits = " or ".join(str(k * n) for k in (size // n, size // n + 1) if k)
            fewer = next(k for k in range(n - 1, 0, -1) if size % k == 0)
            raise ValueError(
                f"dimension {dim!r} of size {size} does not divide over mesh axes {names}; {fits} would, "
                f"or {size} over {fewer}"
            )
    return NamedSharding(mesh, PartitionSpec(*(axes or None for axes in axes_of)))


def partition_spec(dims: Dims, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Return the spec of `sharding_for`, with dimensions whole that do not divide evenly: activations of few clips."""
    sizes = zip(mesh_axes(dims), shape, strict=True)
    return PartitionSpec(*(axes if axes and size % _axes_size(axes, mesh) == 0 else None for axes, size in sizes))


def shard_tree(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return a sharding for every array of a tree, in the tree's own structure.

    Variables with the metadata `dims` follow the rules, an optimiser's moments included since they are made by mapping
    over the parameters. Everything else (counters, keys, statistics) is copied to every device.

    Args:
        tree: arrays or `jax.ShapeDtypeStruct`s, as in an abstract state.

    Raises:
        ValueError: as `sharding_for`, with the path of the array.
    """

    def shard(path: tuple[Any, ...], node: PyTree) -> PyTree:
        dims = node.get_metadata().get("dims") if isinstance(node, nnx.Variable) else None
        if dims is None:
            return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), node)
        try:
            return jax.tree.map(lambda leaf: sharding_for(dims, leaf.shape, mesh), node)
        except ValueError as error:
            raise ValueError(f"{jax.tree_util.keystr(path)}: {error}") from None

    return jax.tree_util.tree_map_with_path(shard, tree, is_leaf=lambda node: isinstance(node, nnx.Variable))


def constrain(x: Array, dims: Dims) -> Array:
    """Constrain the sharding of `x` by the rules on the current mesh (`jax.set_mesh`); no-op on a single device.

    A dimension that does not divide evenly stays whole: few clips may be sampled on many devices.
    """
    mesh = current_mesh()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, partition_spec(dims, x.shape, mesh)))


def gather_array(x: Array, dims: Dims, dtype: DTypeLike) -> Array:
    """Gather a parameter in `dtype` along what "embed" divides, when a layer uses it.

    Its gradient is divided again as it is summed over the devices (FSDP).
    """
    if current_mesh() is None:
        return x.astype(dtype)
    return _gather(x, tuple(dims), jnp.dtype(dtype), x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(x: Array, dims: tuple[str | None, ...], dtype: DTypeLike, stored: DTypeLike) -> Array:
    return constrain(constrain(_keep_layout(x).astype(dtype), dims), [None if dim == "embed" else dim for dim in dims])


def _gather_fwd(x: Array, dims: tuple[str | None, ...], dtype: DTypeLike, stored: DTypeLike) -> tuple[Array, None]:
    return _gather(x, dims, dtype, stored), None


def _gather_bwd(
    dims: tuple[str | None, ...], dtype: DTypeLike, stored: DTypeLike, _: None, gradient: Array
) -> tuple[Array]:
    return (scatter_gradient(gradient, dims, stored),)


def scatter_gradient(gradient: Array, dims: Dims, dtype: DTypeLike) -> Array:
    """Sum the gradient of a gathered parameter over devices in its own type, and shard it like that, in `dtype`."""
    return _keep_layout(constrain(gradient, dims).astype(dtype))


def _keep_layout(x: Array) -> Array:
    """Keep the memory layout of arguments: else XLA copies all layers of a stack to the layout that suits a layer."""
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


_gather.defvjp(_gather_fwd, _gather_bwd)


def map_per_device(fn: Callable[..., PyTree], dims: PyTree, out: Dims) -> Callable[..., PyTree]:
    """Return `fn` called on every device with its own shard of the arguments, where the compiler cannot divide it.

    Args:
        fn: maps shards of the arguments to the same shard of the result.
        dims: the dimension names of every argument, None for one that is absent.
        out: those of every array of the result.

    Shards follow the rules on the current mesh; a dimension that does not divide evenly stays whole. Without a mesh of
    several devices, `fn` itself.
    """
    mesh = current_mesh()
    if mesh is None:
        return fn

    def run(*args: Array | None) -> PyTree:
        specs = tuple(
            None if x is None else partition_spec(names, x.shape, mesh) for x, names in zip(args, dims, strict=True)
        )
        outs = jax.tree.map(lambda x: partition_spec(out, x.shape, mesh), jax.eval_shape(fn, *args))
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=outs, check_vma=False)(*args)

    return run


def _axes_size(axes: Sequence[str], mesh: Mesh | AbstractMesh) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)
