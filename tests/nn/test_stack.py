import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videodit.nn.mlp import MLP
from videodit.nn.param import get_dims
from videodit.nn.stack import Stack

X = jax.random.normal(jax.random.key(1), (2, 3, 4))


class Residual(nnx.Module):
    """A block small enough to reason about."""

    def __init__(self, *, rngs):
        self.mlp = MLP(4, 8, rngs=rngs)

    def __call__(self, x, shift):
        return x + self.mlp(x + shift)


def make(depth, remat="none"):
    return Stack(lambda rngs: Residual(rngs=rngs), depth, remat=remat, rngs=nnx.Rngs(0))


def by_loop(stack, x, shift):
    graph, states = nnx.split(stack.blocks)
    for i in range(jax.tree.leaves(states)[0].shape[0]):
        x = nnx.merge(graph, jax.tree.map(lambda a, i=i: a[i], states))(x, shift)
    return x


def value_and_grad(stack, apply):
    graph, state = nnx.split(stack)
    loss = lambda state, x, shift: jnp.sum(apply(nnx.merge(graph, state), x, shift) ** 2)  # noqa: E731
    return jax.value_and_grad(loss, argnums=(0, 1, 2))(state, X, jnp.ones(4))


@pytest.mark.parametrize("remat", ["none", "full", "dots", "attention", "offload"])
def test_scan_is_a_loop_over_layers_under_every_remat_policy(remat):
    stack = make(3, remat)
    scanned = value_and_grad(stack, lambda stack, *args: stack(*args))
    looped = value_and_grad(stack, by_loop)
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_layers_start_different():
    kernel = make(3).blocks.mlp.up.kernel
    assert kernel.shape == (3, 4, 8)
    assert len({float(layer) for layer in jnp.sum(kernel[...], axis=(1, 2))}) == 3


def test_no_layers_are_the_identity():
    stack = make(0)
    np.testing.assert_array_equal(stack(X, jnp.ones(4)), X)
    assert stack.blocks.mlp.up.kernel.shape == (0, 4, 8)


def test_parameters_carry_the_layer_dimension():
    dims = get_dims(nnx.state(make(2)))
    assert dims["blocks"]["mlp"]["up"]["kernel"] == ("layer", "embed", "mlp")
    assert dims["blocks"]["mlp"]["out"]["bias"] == ("layer", "embed")


def test_abstract_and_jitted_initialization_are_the_same_model():
    abstract = nnx.state(nnx.eval_shape(lambda: make(2)))
    real = jax.jit(lambda: nnx.state(make(2)))()
    assert jax.tree.structure(abstract) == jax.tree.structure(real) == jax.tree.structure(nnx.state(make(2)))
    for a, b, c in zip(*map(jax.tree.leaves, (abstract, real, nnx.state(make(2)))), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(b, c, rtol=1e-6)
