import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from videodit.nn.norm import LayerNorm, RMSNorm, layer_norm, rms_norm

X = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 3, 64))


def test_rms_norm_has_unit_mean_square_and_ignores_magnitude():
    y = rms_norm(X)
    np.testing.assert_allclose(jnp.mean(y**2, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rms_norm(100 * X), y, rtol=1e-5)
    assert float(jnp.abs(y.mean(axis=-1)).min()) > 0.1  # it keeps the mean


def test_layer_norm_has_zero_mean_and_unit_variance_and_ignores_scale_and_shift():
    y = layer_norm(X)
    np.testing.assert_allclose(y.mean(axis=-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.var(axis=-1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(layer_norm(7 * X - 5), y, atol=1e-4)


def test_scale_and_bias_broadcast():
    one_a_row, one_a_token = jnp.full((2, 1, 64), 2.0), jnp.arange(6.0).reshape(2, 3, 1) * jnp.ones(64)
    np.testing.assert_allclose(layer_norm(X, one_a_row, one_a_token), 2 * layer_norm(X) + one_a_token, rtol=1e-6)


def test_low_precision_is_normalized_in_float32():
    small = (1e-3 * X).astype(jnp.bfloat16)
    assert rms_norm(small).dtype == layer_norm(small).dtype == jnp.bfloat16
    np.testing.assert_allclose(rms_norm(small).astype(jnp.float32), rms_norm(small.astype(jnp.float32)), rtol=1e-2)


def test_modules_start_as_the_plain_norms():
    np.testing.assert_array_equal(RMSNorm(64, dim="embed", rngs=nnx.Rngs(0))(X), rms_norm(X))
    np.testing.assert_array_equal(LayerNorm(64, dim="embed", rngs=nnx.Rngs(0))(X), layer_norm(X))
