import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.nn import initializers

from videodit.nn.conv import CausalConv3d
from videodit.nn.linear import Linear
from videodit.nn.param import get_dims, matrix_axes, param, prepend_dim


def is_dims(node):
    return isinstance(node, tuple)


def test_every_dimension_needs_a_name():
    with pytest.raises(ValueError, match="2 dimension names"):
        param(jax.random.key(0), initializers.ones, (2, 3), ("embed",))


@pytest.mark.parametrize("make", [lambda make: make(), nnx.eval_shape])
def test_names_outlive_split_merge_grad_and_abstract_init(make):
    layer = make(lambda: Linear({"embed": 3}, {"mlp": 4}, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(layer)
    expected = {"kernel": ("embed", "mlp"), "bias": ("mlp",)}
    assert dict(get_dims(nnx.state(nnx.merge(graph, state)))) == expected
    x = jnp.ones((2, 3))
    grads = jax.eval_shape(jax.grad(lambda s: nnx.merge(graph, s)(x).sum()), state)
    assert dict(get_dims(grads)) == expected


def test_a_vmapped_initializer_gets_its_dimension_in_front():
    def init(key):
        return nnx.state(Linear({"embed": 3}, {"mlp": 4}, rngs=nnx.Rngs(key)))

    stacked = jax.vmap(init)(jax.random.split(jax.random.key(0), 5))
    named = prepend_dim(stacked, "layer")
    assert dict(get_dims(named)) == {"kernel": ("layer", "embed", "mlp"), "bias": ("layer", "mlp")}
    assert dict(get_dims(stacked)) == {"kernel": ("embed", "mlp"), "bias": ("mlp",)}  # the original is untouched
    assert named["kernel"].shape == (5, 3, 4)


def test_matrices_know_their_inputs_and_outputs_alone_and_stacked():
    def init(key):
        rngs = nnx.Rngs(key)
        layers = {"out": Linear({"heads": 2, "head_dim": 3}, {"embed": 4}, rngs=rngs)}
        return nnx.state(nnx.Dict(layers | {"conv": CausalConv3d(2, 3, rngs=rngs)}))

    state = init(jax.random.key(0))
    axes = nnx.to_pure_dict(matrix_axes(state))
    assert axes == {
        "out": {"kernel": ((0, 1), (2,)), "bias": None},
        "conv": {"kernel": ((0, 1, 2, 3), (4,)), "bias": None},
    }
    stacked = prepend_dim(jax.vmap(init)(jax.random.split(jax.random.key(0), 5)), "layer")
    assert nnx.to_pure_dict(matrix_axes(stacked))["out"]["kernel"] == ((1, 2), (3,))
