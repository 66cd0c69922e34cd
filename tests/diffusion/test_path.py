import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion import path


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def draw(shape=(3, 2, 4)):
    return tuple(normal(2, *shape))


def test_zero_is_data_and_one_is_noise():
    data, noise = draw()
    assert jnp.array_equal(path.interpolate(data, noise, jnp.zeros(3)), data)
    assert jnp.array_equal(path.interpolate(data, noise, jnp.ones(3)), noise)


def test_velocity_is_the_derivative_of_the_path():
    data, noise = draw()
    t_B = jnp.array([0.1, 0.5, 0.9])
    _, tangent = jax.jvp(lambda t: path.interpolate(data, noise, t), (t_B,), (jnp.ones(3),))
    np.testing.assert_allclose(tangent, path.velocity(data, noise), rtol=1e-6)


@pytest.mark.parametrize("t_shape", [(), (3,), (3, 2)], ids=["one time", "a clip", "a token"])
def test_the_true_velocity_predicts_the_data(t_shape):
    data, noise = draw()
    t = 0.5 + 0.4 * jnp.tanh(normal(*t_shape))
    x, v = path.interpolate(data, noise, t), path.velocity(data, noise)
    np.testing.assert_allclose(path.data_from_velocity(x, v, t), data, atol=1e-5)


def test_times_that_do_not_lead_the_data_are_refused():
    data, noise = draw()
    with pytest.raises(ValueError, match=r"\(2,\).*\(3, 2, 4\)"):
        path.interpolate(data, noise, jnp.zeros(2))


@pytest.mark.parametrize("xp", [np, jnp])
def test_half_log_snr(xp):
    t = xp.linspace(0.01, 0.99, 7)
    half_log_snr = path.half_log_snr(t)
    assert isinstance(half_log_snr, np.ndarray if xp is np else jax.Array)
    np.testing.assert_allclose(half_log_snr, np.log(path.alpha(t) / path.sigma(t)), rtol=1e-5, atol=1e-6)
    assert np.all(np.diff(half_log_snr) < 0)
