import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion.guidance import guided
from videodit.diffusion.path import over
from videodit.diffusion.sample import SOLVERS, SamplerConfig, make_solver, sample_conditioned
from videodit.diffusion.solvers import heun, integrate
from videodit.diffusion.timesteps import schedule


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_compiles_and_lands_on_the_data(solver):
    noise = normal(2, 3, 4, 4, 2)
    v = noise - 0.25
    times = schedule(4, 3.0)
    data = jax.jit(lambda noise: integrate(make_solver(solver), lambda x, t_B: v, noise, times))(noise)
    assert data.shape == noise.shape and data.dtype == jnp.float32
    np.testing.assert_allclose(data, 0.25, atol=1e-6)


def test_the_condition_decides_where_samples_land():
    noise = normal(3, 5)
    target_B = jnp.array([-1.0, 0.0, 2.0])

    def velocity(x, t_B, target_B):
        return (x - over(target_B, x)) / over(t_B, x)

    cfg = SamplerConfig(steps=5, shift=2.0)
    data = sample_conditioned(cfg, velocity, noise, target_B, jnp.zeros(3))
    np.testing.assert_allclose(data, jnp.repeat(target_B[:, None], 5, 1), atol=1e-5)


def test_the_config_reaches_every_part():
    def velocity(x, t_B, cond):
        return jnp.tanh(x) * over(cond, x) + over(t_B, x)

    noise = normal(2, 5)
    cond, uncond = jnp.array([1.0, 2.0]), jnp.zeros(2)
    cfg = SamplerConfig(
        steps=4, shift=1.5, base_tokens=16, t_min=0.01, solver="heun",
        guidance=3.0, guidance_interval=(0.2, 0.9), guidance_rescale=0.5,
    )  # fmt: skip
    fn = guided(velocity, cond, uncond, 3.0, interval=(0.2, 0.9), rescale=0.5)
    expected = integrate(heun(), fn, noise, schedule(4, 1.5 * 2, t_min=0.01))
    output = sample_conditioned(cfg, velocity, noise, cond, uncond, num_tokens=64)
    np.testing.assert_allclose(output, expected, rtol=1e-5)
    assert not jnp.allclose(
        output, sample_conditioned(SamplerConfig(steps=4), velocity, noise, cond, uncond), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "ddim"}, "'ddim' is unknown"),
        ({"order": 5}, "^order is 5: it must be from 1 to 3$"),
        ({"steps": 10**9}, "^steps is 1000000000: it must be from 1 to 100000$"),
        ({"steps": 0}, "^steps is 0: it must be from 1 to 100000$"),
        ({"shift": 0.0}, "shift is 0.0"),
    ],
)
def test_senseless_settings_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**settings)
