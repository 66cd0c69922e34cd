import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videodit.nn.linear import Linear


@pytest.mark.parametrize(
    ("into", "out", "formula"),
    [
        ({"embed": 6}, {"mlp": 4}, "bld,df->blf"),
        ({"embed": 6}, {"heads": 2, "head_dim": 3}, "bld,dnh->blnh"),
        ({"heads": 2, "head_dim": 3}, {"embed": 6}, "blnh,nhd->bld"),
    ],
)
def test_groups_of_dimensions_are_an_einsum(into, out, formula):
    layer = Linear(into, out, rngs=nnx.Rngs(0))
    layer.bias[...] = jax.random.normal(jax.random.key(1), layer.bias.shape)
    x = jax.random.normal(jax.random.key(2), (2, 5, *into.values()))
    expected = jnp.einsum(formula, x, layer.kernel[...]) + layer.bias[...]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_the_initializer_sees_a_matrix():
    grouped = Linear({"embed": 64}, {"heads": 16, "head_dim": 64}, rngs=nnx.Rngs(0))
    plain = Linear({"embed": 64}, {"mlp": 1024}, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(grouped.kernel[...].reshape(64, 1024), plain.kernel[...])
    assert plain.bias.shape == (1024,)
    assert Linear({"embed": 2}, {"mlp": 3}, use_bias=False, rngs=nnx.Rngs(0)).bias is None


def test_it_computes_in_the_type_of_its_input():
    layer = Linear({"embed": 6}, {"mlp": 4}, rngs=nnx.Rngs(0))
    assert layer(jnp.ones((2, 6), jnp.bfloat16)).dtype == jnp.bfloat16
    assert layer.kernel.dtype == jnp.float32
