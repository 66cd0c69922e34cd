import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion.guidance import guided, match_std
from videodit.diffusion.path import over

SHAPE = (3, 2, 4)
COND = {"shift": jnp.array([1.0, 2.0, 3.0]), "gain": jnp.array([0.5, 0.6, 0.7])}
UNCOND = {"shift": jnp.zeros(3), "gain": jnp.full(3, 0.1)}


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def velocity(x, t_B, cond):
    return jnp.sin(x) * over(cond["gain"], x) + over(cond["shift"] * t_B, x)


def point():
    return normal(*SHAPE), jnp.array([0.2, 0.5, 0.8])


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_guidance_extrapolates_from_unconditional_through_conditional(scale):
    x, t_B = point()
    v_cond, v_uncond = velocity(x, t_B, COND), velocity(x, t_B, UNCOND)
    output = guided(velocity, COND, UNCOND, scale)(x, t_B)
    np.testing.assert_allclose(output, v_uncond + scale * (v_cond - v_uncond), rtol=1e-5, atol=1e-6)


def list_batch_sizes(t, **settings):
    sizes = []

    def counted(x, t_B, cond):
        jax.debug.callback(lambda: sizes.append(len(x)))
        return velocity(x, t_B, cond)

    jax.block_until_ready(jax.jit(guided(counted, COND, UNCOND, **settings))(point()[0], jnp.full(3, t)))
    jax.effects_barrier()
    return sizes


def test_the_model_runs_once_on_two_halves():
    assert list_batch_sizes(0.5, scale=3.0) == [6]


def test_scale_one_costs_no_more_than_the_conditional_model():
    assert list_batch_sizes(0.5, scale=1.0) == [3]


def test_outside_the_interval_the_conditional_model_runs_alone():
    assert list_batch_sizes(0.9, scale=3.0, interval=(0.2, 0.6)) == [3]
    assert sum(list_batch_sizes(0.5, scale=3.0, interval=(0.2, 0.6))) == 6


def test_the_interval_holds_clip_by_clip():
    x, t_B = point()
    output = guided(velocity, COND, UNCOND, 3.0, interval=(0.3, 0.7))(x, t_B)
    v_cond, v_uncond = velocity(x, t_B, COND), velocity(x, t_B, UNCOND)
    expected = v_cond.at[1].add(2 * (v_cond - v_uncond)[1])
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_full_rescale_restores_the_standard_deviation():
    x, t_B = point()
    dims = (1, 2)
    v_cond = velocity(x, t_B, COND)
    full = guided(velocity, COND, UNCOND, 5.0, rescale=1.0)(x, t_B)
    half = guided(velocity, COND, UNCOND, 5.0, rescale=0.5)(x, t_B)
    none = guided(velocity, COND, UNCOND, 5.0)(x, t_B)
    np.testing.assert_allclose(full.std(dims), v_cond.std(dims), rtol=1e-5)
    assert not np.allclose(none.std(dims), v_cond.std(dims), rtol=0.1)
    np.testing.assert_allclose(half, (full + none) / 2, rtol=1e-5, atol=1e-6)


def test_a_constant_velocity_survives_the_rescale():
    v = jnp.zeros(SHAPE)
    assert jnp.all(jnp.isfinite(match_std(v, point()[0], 1.0)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": (0.5, 0.5)}, "rising"),
        ({"interval": (0.0, 2.0)}, "in .0, 1."),
        ({"rescale": 2.0}, "rescale is 2.0"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        guided(velocity, COND, UNCOND, 3.0, **settings)
