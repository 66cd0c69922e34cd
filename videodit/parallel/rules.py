"""Which mesh axes divide a tensor dimension: one table, and the shardings made from it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "layer": (),
    "mlp": (),
    "heads": (),
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


def mesh_axes(dims: Sequence[str | None]) -> tuple[tuple[str, ...], ...]:
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


def sharding_for(dims: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> NamedSharding:
    """How an array of `shape` with these dimension names lies on the mesh.

    Raises:
        ValueError: as `mesh_axes`, and when a dimension is not a multiple of the mesh axes that divide it.
    """
    if len(dims) != len(shape):
        raise ValueError(f"an array of shape {tuple(shape)} cannot have the dimensions {tuple(dims)}")
    axes_of = mesh_axes(dims)
    for dim, size, axes in zip(dims, shape, axes_of, strict=True):
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            names = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
            fits = " or ".join(str(n * parts) for n in (size // parts, size // parts + 1) if n)
            raise ValueError(f"dimension {dim!r} of size {size} does not divide over mesh axes {names}; {fits} would")
    return NamedSharding(mesh, PartitionSpec(*(axes or None for axes in axes_of)))


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


def constrain(x: Array, dims: Sequence[str | None]) -> Array:
    """`x`, laid out by the rules on the mesh in force (`jax.set_mesh`); without a mesh, `x` itself."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, sharding_for(dims, x.shape, mesh))


def per_device(fn: Callable[..., PyTree], dims: PyTree, out: Sequence[str | None]) -> Callable[..., PyTree]:
    """`fn`, called on every device with its own part of the arguments; for what the compiler cannot divide by itself.

    Args:
        fn: gives for parts what is that part of its result.
        dims: the dimension names of every argument, None for one that is absent.
        out: those of every array of the result.

    The parts are as the rules divide them on the mesh in force; a dimension that does not divide evenly stays whole.
    Without a mesh of several devices, `fn` itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return fn

    def spec(names: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
        def parts(axes):
            return math.prod(mesh.shape[axis] for axis in axes)

        sizes = zip(mesh_axes(names), shape, strict=True)
        return PartitionSpec(*(axes if axes and size % parts(axes) == 0 else None for axes, size in sizes))

    def run(*args: Array | None) -> PyTree:
        specs = tuple(None if x is None else spec(names, x.shape) for x, names in zip(args, dims, strict=True))
        outs = jax.tree.map(lambda x: spec(out, x.shape), jax.eval_shape(fn, *args))
        return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=outs, check_vma=False)(*args)

    return run
