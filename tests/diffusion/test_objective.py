"""The objective: values of its loss, one per clip, and its weightings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion.objective import WEIGHTINGS, ObjectiveConfig, compute_loss, mean_per_clip
from videodit.diffusion.path import interpolate, over

SHAPE = (6, 3, 4, 4, 2)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def loss_of(velocity, data, noise, t, weighting="uniform"):
    return compute_loss(ObjectiveConfig(weighting=weighting), velocity, data, noise, t, mean_per_clip)


def test_the_true_velocity_of_one_point_has_no_loss():
    loss_B = loss_of(lambda x, t: (x - 0.5) / over(t, x), jnp.full(SHAPE, 0.5), normal(*SHAPE), jnp.linspace(0.1, 1, 6))
    assert loss_B.shape == SHAPE[:1]
    np.testing.assert_allclose(loss_B, 0, atol=1e-8)


def test_the_best_loss_on_gaussian_data_is_the_conditional_variance():
    std, t = 0.4, 0.3
    variance = (1 - t) ** 2 * std**2 + t**2
    data, noise = normal(2, 4, 20000)
    loss_B = loss_of(lambda x, t_B: (t - (1 - t) * std**2) / variance * x, std * data, noise, jnp.full(4, t))
    np.testing.assert_allclose(loss_B, std**2 / variance, rtol=0.05)


def test_a_loss_depends_on_its_own_clip_alone():
    def velocity(x, t_B):
        return 0.3 * x + over(t_B, x)

    data, noise = normal(2, *SHAPE)
    t_B = jnp.linspace(0.1, 0.9, 6)
    loss_B = loss_of(velocity, data, noise, t_B)
    other_B = loss_of(velocity, data.at[2].multiply(3.0), noise, t_B)
    assert np.flatnonzero(np.asarray(loss_B != other_B)).tolist() == [2]
    np.testing.assert_allclose(loss_B[:2], loss_of(velocity, data[:2], noise[:2], t_B[:2]), rtol=1e-6)


def test_losses_are_float32_for_a_bfloat16_model():
    def velocity(x, t_B):
        assert x.dtype == t_B.dtype == jnp.float32
        return x.astype(jnp.bfloat16)

    data = jnp.zeros(SHAPE, jnp.bfloat16)
    assert jax.eval_shape(lambda data: loss_of(velocity, data, data, jnp.ones(6)), data).dtype == jnp.float32


@pytest.mark.parametrize("shape", [(6,), (6, 3)], ids=["by clip", "by token"])
@pytest.mark.parametrize("weighting", ["data", "noise"])
def test_a_weighting_is_the_error_of_another_prediction(weighting, shape):
    data, noise = normal(2, *SHAPE)
    t = jnp.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape)
    x = interpolate(data, noise, t)
    v, t_x = jnp.sin(x), over(t, x)
    error = x - t_x * v - data if weighting == "data" else x + (1 - t_x) * v - noise
    loss_B = loss_of(lambda x, t: jnp.sin(x), data, noise, t, weighting)
    np.testing.assert_allclose(loss_B, jnp.mean(error**2, (1, 2, 3, 4)), rtol=1e-4)


def test_cosmap_is_a_density():
    t = (jnp.arange(10000) + 0.5) / 10000
    np.testing.assert_allclose(WEIGHTINGS.get("cosmap")(t).mean(), 1, rtol=1e-5)


def test_an_unknown_weighting_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no loss weighting 'cosmop': did you mean 'cosmap'"):
        ObjectiveConfig(weighting="cosmop")
