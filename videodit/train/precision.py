"""Parameters and moments stored in fewer bits than they are computed in."""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, BFloat16, DTypeLike, Float32, PyTree, UInt32

from videodit.config.optim import Stored
from videodit.shapes import RandomKey


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Return the tree with all floats in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def store_state_in(optimizer: optax.GradientTransformation, dtype: Stored) -> optax.GradientTransformation:
    """Return the optimizer with its state stored in `dtype`; it computes in float32 whatever it is given.

    bfloat16 has 8 bits: an average moves only while its steps are above 2**-9 of it, so that `b2` is at most 0.99.
    """

    def init(params: PyTree) -> PyTree:
        return cast(optimizer.init(cast(params, jnp.float32)), dtype)

    def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        grads, state, params = (cast(tree, jnp.float32) for tree in (grads, state, params))
        updates, state = optimizer.update(grads, state, params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(init, update)


def apply_updates(params: PyTree, updates: PyTree, key: RandomKey) -> PyTree:
    """Return parameters plus float32 updates; in bfloat16 rounded at random, or most steps would be lost."""
    leaves, tree = jax.tree.flatten(params)
    moved = [
        p + u if p.dtype == jnp.float32 else round_randomly(p.astype(jnp.float32) + u, jax.random.fold_in(key, i))
        for i, (p, u) in enumerate(zip(leaves, jax.tree.leaves(updates), strict=True))
    ]
    return jax.tree.unflatten(tree, moved)


def round_randomly(x: Float32[Array, "*dims"], key: RandomKey) -> BFloat16[Array, "*dims"]:
    """Round to one of the two neighbours in bfloat16, with `x` as the mean (stochastic rounding, arXiv:1502.02551)."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + (_hash(x.shape, key) >> 16)
    return jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)


def _hash(shape: tuple[int, ...], key: RandomKey) -> UInt32[Array, "*dims"]:
    """Return random bits, good enough to round by: every element's index, mixed (C. Wellons' lowbias32, public domain).

    In fewer operations than a random generator takes, which would be a third of a step's compilation.
    """
    bits = jax.random.bits(key, (), jnp.uint32)
    for dim, stride in enumerate(math.prod(shape[dim + 1 :]) for dim in range(len(shape))):
        bits += jax.lax.broadcasted_iota(jnp.uint32, shape, dim) * jnp.uint32(stride % 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 16)
