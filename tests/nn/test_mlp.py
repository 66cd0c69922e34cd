import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from videodit.nn.mlp import MLP

X = jax.random.normal(jax.random.key(0), (2, 3, 4))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_gelu_network_is_its_formula():
    mlp = MLP(4, 8, rngs=nnx.Rngs(0))
    expected = tanh_gelu(X @ mlp.up.kernel[...]) @ mlp.out.kernel[...]
    np.testing.assert_allclose(mlp(X), expected, rtol=1e-4, atol=1e-5)


def test_gated_network_is_its_formula():
    mlp = MLP(4, 8, kind="gated", use_bias=False, rngs=nnx.Rngs(0))
    expected = (tanh_gelu(X @ mlp.gate.kernel[...]) * (X @ mlp.up.kernel[...])) @ mlp.out.kernel[...]
    np.testing.assert_allclose(mlp(X), expected, rtol=1e-4, atol=1e-5)


def test_tokens_do_not_see_each_other():
    mlp = MLP(4, 8, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(mlp(X)[:, 1:2], mlp(X[:, 1:2]), rtol=1e-5, atol=1e-6)
    assert mlp(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
