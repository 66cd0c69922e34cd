"""A stack of equal blocks: parameters with a leading "layer" dimension, applied by one scan."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from videodit.nn.param import prepend_dim

Remat = Literal["none", "full", "dots"]


def rematerialise(body: Callable[..., Any], policy: Remat) -> Callable[..., Any]:
    """`body` under a named policy on what its backward pass keeps rather than computes again.

    "none" keeps everything, "full" keeps the inputs only, "dots" keeps the results of matrix products with parameters.

    Raises:
        ValueError: for any other name.
    """
    if policy == "none":
        return body
    if policy == "full":
        return jax.checkpoint(body, prevent_cse=False)
    if policy == "dots":
        keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        return jax.checkpoint(body, prevent_cse=False, policy=keep)
    raise ValueError(f"remat is one of {', '.join(get_args(Remat))}, got {policy!r}")


class Stack(nnx.Module):
    """`depth` blocks of one kind, each mapping x to x of the same shape and type.

    Args:
        make_block: builds one block from its `rngs`.
        depth: number of blocks; zero is the identity.
        remat: what the backward pass keeps (see `rematerialise`).
    """

    def __init__(self, make_block: Callable[[nnx.Rngs], nnx.Module], depth: int, *, remat: Remat, rngs: nnx.Rngs):
        self.remat = remat

        def init(key: Array) -> PyTree:
            return nnx.state(make_block(nnx.Rngs(key)))

        states = prepend_dim(jax.vmap(init)(jax.random.split(rngs.params(), depth)), "layer")
        blueprint = nnx.graphdef(nnx.eval_shape(lambda: make_block(nnx.Rngs(0))))
        self.blocks = nnx.merge(blueprint, states)

    def __call__(self, x: Float[Array, "..."], *shared: Any) -> Float[Array, "..."]:
        """Every block in turn: `x = block(x, *shared)`."""
        blueprint, states = nnx.split(self.blocks)

        def body(x: Array, state: PyTree) -> tuple[Array, None]:
            return nnx.merge(blueprint, state)(x, *shared), None

        return jax.lax.scan(rematerialise(body, self.remat), x, states)[0]
