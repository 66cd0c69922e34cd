import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion.objective import bucketed, flow_matching_loss, loss_at
from videodit.diffusion.path import over
from videodit.diffusion.timesteps import TimestepConfig

SHAPE = (6, 3, 4, 4, 2)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_the_true_velocity_of_one_point_has_no_loss():
    def velocity(x, t_B):
        return (x - 0.5) / over(t_B, x)

    @jax.jit
    def loss(data, key):
        return flow_matching_loss(velocity, data, key, TimestepConfig())

    loss_B, aux = loss(jnp.full(SHAPE, 0.5), jax.random.key(0))
    assert loss_B.shape == aux["t_B"].shape == SHAPE[:1]
    np.testing.assert_allclose(loss_B, 0, atol=1e-8)


def test_the_best_loss_on_gaussian_data_is_the_conditional_variance():
    std, t = 0.4, 0.3
    variance = (1 - t) ** 2 * std**2 + t**2

    def velocity(x, t_B):
        return (t - (1 - t) * std**2) / variance * x

    data, noise = normal(2, 4, 20000)
    loss_B = loss_at(velocity, std * data, noise, jnp.full(4, t))
    np.testing.assert_allclose(loss_B, std**2 / variance, rtol=0.05)


def test_a_loss_depends_on_its_own_clip_alone():
    def velocity(x, t_B):
        return 0.3 * x + over(t_B, x)

    data, noise = normal(2, *SHAPE)
    t_B = jnp.linspace(0.1, 0.9, 6)
    loss_B = loss_at(velocity, data, noise, t_B)
    other_B = loss_at(velocity, data.at[2].multiply(3.0), noise, t_B)
    assert np.flatnonzero(np.asarray(loss_B != other_B)).tolist() == [2]
    np.testing.assert_allclose(loss_B[:2], loss_at(velocity, data[:2], noise[:2], t_B[:2]), rtol=1e-6)


def test_losses_are_float32_for_a_bfloat16_model():
    def velocity(x, t_B):
        assert x.dtype == t_B.dtype == jnp.float32
        return x.astype(jnp.bfloat16)

    data, key = jnp.zeros(SHAPE, jnp.bfloat16), jax.random.key(0)
    loss_B, _ = jax.eval_shape(lambda data, key: flow_matching_loss(velocity, data, key, TimestepConfig()), data, key)
    assert loss_B.dtype == jnp.float32


def test_a_key_decides():
    cfg = TimestepConfig(base_tokens=16)
    loss = jax.jit(lambda key, data: flow_matching_loss(lambda x, t_B: x, data, key, cfg, num_tokens=48)[0])
    first, again, other = (loss(jax.random.key(seed), jnp.ones(SHAPE)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not jnp.array_equal(first, other)


def test_buckets_hold_every_clip_once_and_add_up():
    loss_B = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    t_B = jnp.array([0.0, 0.24, 0.25, 0.6, 1.0])
    edges = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    buckets = jax.jit(bucketed, static_argnums=2)(loss_B, t_B, edges)
    np.testing.assert_array_equal(buckets.count_K, [2, 1, 1, 0, 1])
    np.testing.assert_array_equal(buckets.mean_K, [1.5, 3, 4, np.nan, 5])
    twice = buckets + bucketed(loss_B, t_B, edges)
    np.testing.assert_array_equal(twice.mean_K, buckets.mean_K)
    assert twice.sum_K.sum() == 2 * loss_B.sum()


@pytest.mark.parametrize("edges", [(0.0,), (0.0, 0.5, 0.5), (1.0, 0.0)])
def test_edges_that_do_not_rise_are_refused(edges):
    with pytest.raises(ValueError, match="rising"):
        bucketed(jnp.ones(2), jnp.ones(2), edges)
