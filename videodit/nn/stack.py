"""Stacks of equal blocks: parameters with a leading "layer" dimension, applied by one scan."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PyTree

from videodit.nn.param import drop_dim, prepend_dim
from videodit.parallel.context import RESIDUALS

Remat = Literal["none", "full", "dots", "attention", "offload"]
INPUT = "input"  # the name of a block's input in policies of `jax.checkpoint`


def rematerialize(body: Callable[..., Any], policy: Remat, *, in_scan: bool = True) -> Callable[..., Any]:
    """Wrap `body` in a named policy on what its backward pass keeps rather than computes again.

    "none" keeps everything, "full" the inputs of blocks only, "dots" those and the results of matrix products with
    parameters, "attention" those and the output of self-attention; "offload" keeps what "attention" does, but in the
    host's memory. `in_scan` says that `body` is called in the body of a scan, which cannot share its computations with
    the backward pass.

    Raises:
        ValueError: for any other name.
    """
    policies = jax.checkpoint_policies
    keep = {
        "full": None,
        "dots": policies.dots_with_no_batch_dims_saveable,
        "attention": policies.save_only_these_names(RESIDUALS),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[INPUT, RESIDUALS],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }
    if policy == "none":
        return body
    if policy not in keep:
        raise ValueError(f"remat is one of {', '.join(get_args(Remat))}, got {policy!r}")
    return jax.checkpoint(body, prevent_cse=not in_scan, policy=keep[policy])


class Stack(nnx.Module):
    """`depth` blocks of one kind, each mapping x to x of the same shape and type.

    Args:
        make_block: builds one block from its `rngs`.
        depth: number of blocks; zero is the identity.
        remat: what the backward pass keeps (see `rematerialize`).
    """

    def __init__(self, make_block: Callable[[nnx.Rngs], nnx.Module], depth: int, *, remat: Remat, rngs: nnx.Rngs):
        self.remat = remat

        def init(key: Array) -> PyTree:
            return nnx.state(make_block(nnx.Rngs(key)))

        states = prepend_dim(jax.vmap(init)(jax.random.split(rngs.params(), depth)), "layer")
        blueprint = nnx.graphdef(nnx.eval_shape(lambda: make_block(nnx.Rngs(0))))
        self.blocks = nnx.merge(blueprint, states)

    def __call__(self, x: Float[Array, "..."], *shared: Any, pattern: Sequence[Any] = ()) -> Float[Array, "..."]:
        """Apply every block in turn: `x = block(x, *shared)`.

        Args:
            pattern: values known when tracing, one for each of some consecutive blocks and repeated over the depth;
                blocks get theirs as a last argument: `x = block(x, *shared, pattern[i % len(pattern)])`.
        """
        blueprint, states = nnx.split(self.blocks)

        def apply(static: tuple[Any, ...], x: Array, state: PyTree) -> tuple[Array, None]:
            return nnx.merge(blueprint, drop_dim(state))(checkpoint_name(x, INPUT), *shared, *static), None

        if len(set(pattern)) <= 1:
            body = functools.partial(apply, tuple(pattern[:1]))
            return jax.lax.scan(rematerialize(body, self.remat), x, states)[0]
        return self._apply_pattern(x, states, [functools.partial(apply, (static,)) for static in pattern])

    def _apply_pattern(self, x: Array, states: PyTree, bodies: Sequence[Callable[..., Any]]) -> Array:
        """Apply blocks that differ: a scan over groups of as many as `bodies`, then the blocks that remain."""
        size, depth = len(bodies), jax.tree.leaves(states)[0].shape[0]
        whole = depth // size * size

        def apply_group(x: Array, group: PyTree) -> tuple[Array, None]:
            for at, body in enumerate(bodies):
                x, _ = rematerialize(body, self.remat)(x, jax.tree.map(lambda leaf, at=at: leaf[at], group))
            return x, None

        groups = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), states)
        x, _ = jax.lax.scan(apply_group, x, groups)
        for body, at in zip(bodies, range(whole, depth), strict=False):
            state = jax.tree.map(lambda leaf, at=at: leaf[at], states)
            x, _ = rematerialize(body, self.remat, in_scan=False)(x, state)
        return x
