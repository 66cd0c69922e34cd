import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion import timesteps
from videodit.diffusion.timesteps import TimestepConfig, resolution_shift, schedule, shift_timesteps, uniforms

# Compiled as wholes: op by op, the inverse of the normal distribution alone would compile dozens of programs.
quantile = jax.jit(timesteps.quantile, static_argnums=0)
density = jax.jit(timesteps.density, static_argnums=0)
sample_timesteps = jax.jit(timesteps.sample_timesteps, static_argnums=(0, 2))

CONFIGS = {
    "uniform": TimestepConfig("uniform"),
    "uniform shifted": TimestepConfig("uniform", shift=3.0),
    "logit-normal": TimestepConfig("logit_normal"),
    "logit-normal moved": TimestepConfig("logit_normal", mean=-0.4, std=1.3, shift=2.0),
    "by resolution": TimestepConfig("logit_normal", base_tokens=256),
}
every_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


@every_config
def test_density_integrates_to_one_and_to_the_quantiles(cfg):
    edges = jnp.linspace(0.0, 1.0, 20001)
    middles = (edges[1:] + edges[:-1]) / 2
    cumulative = np.cumsum(np.asarray(density(cfg, middles, num_tokens=1024), np.float64)) / len(middles)
    assert cumulative[-1] == pytest.approx(1.0, abs=1e-4)
    for u in (0.05, 0.25, 0.5, 0.75, 0.95):
        t = float(quantile(cfg, jnp.float32(u), num_tokens=1024))
        assert np.interp(t, edges[1:], cumulative) == pytest.approx(u, abs=1e-3)


@every_config
@pytest.mark.parametrize("stratified", [True, False])
def test_samples_have_the_quantiles_of_the_distribution(cfg, stratified):
    cfg = TimestepConfig(cfg.distribution, cfg.mean, cfg.std, cfg.shift, cfg.base_tokens, stratified)
    t = np.asarray(sample_timesteps(cfg, jax.random.key(3), (16, 512), num_tokens=1024))
    assert t.shape == (16, 512) and t.min() >= 0 and t.max() <= 1
    u = np.array([0.1, 0.5, 0.9], np.float32)
    np.testing.assert_allclose(np.quantile(t, u), quantile(cfg, jnp.asarray(u), num_tokens=1024), atol=0.03)


def test_stratified_draws_fall_one_in_each_slice():
    u = np.asarray(uniforms(jax.random.key(0), (8, 4), stratified=True))
    assert u.shape == (8, 4) and sorted(np.floor(u.ravel() * 32).astype(int)) == list(range(32))


def test_stratified_draws_lower_the_variance_of_a_batch_mean():
    keys = jax.random.split(jax.random.key(0), 200)

    def std_of_means(stratified):
        cfg = TimestepConfig(stratified=stratified)
        t_KB = np.asarray(jax.vmap(lambda key: sample_timesteps(cfg, key, (16,)))(keys))
        return t_KB.mean(1).std()

    assert std_of_means(True) < 0.5 * std_of_means(False)


def test_every_position_of_a_stratified_batch_sees_the_whole_distribution():
    keys = jax.random.split(jax.random.key(0), 2000)
    u_KB = np.asarray(jax.vmap(lambda key: uniforms(key, (4,), stratified=True))(keys))
    np.testing.assert_allclose(u_KB.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(u_KB.var(0), 1 / 12, atol=0.01)


@pytest.mark.parametrize("shift", [0.3, 1.0, 5.0])
def test_shift_inverts_keeps_the_ends_and_moves_the_logit(shift):
    t = np.linspace(0, 1, 11)
    shifted = shift_timesteps(t, shift)
    np.testing.assert_allclose(shift_timesteps(shifted, 1 / shift), t, atol=1e-12)
    assert shifted[0] == 0 and shifted[-1] == 1
    logit = np.log(t[1:-1] / (1 - t[1:-1])) + math.log(shift)
    np.testing.assert_allclose(shifted[1:-1], 1 / (1 + np.exp(-logit)))


def test_shifting_a_logit_normal_moves_its_mean():
    u = jnp.linspace(0.01, 0.99, 9)
    shifted = quantile(TimestepConfig(shift=3.0), u)
    np.testing.assert_allclose(shifted, quantile(TimestepConfig(mean=math.log(3.0)), u), rtol=1e-5)


def test_shift_grows_with_the_root_of_the_tokens():
    assert resolution_shift(2.0, 256, 1024) == 4.0
    assert resolution_shift(2.0, None, 1024) == 2.0
    np.testing.assert_allclose(resolution_shift(1.0, 256, jnp.array([64, 256])), [0.5, 1.0])
    with pytest.raises(ValueError, match="pass num_tokens"):
        resolution_shift(1.0, 256, None)


def test_one_batch_may_hold_clips_of_many_sizes():
    cfg = TimestepConfig("uniform", base_tokens=256)
    tokens_B = jnp.array([256, 4096])
    u_B = jnp.array([0.5, 0.5])
    np.testing.assert_allclose(quantile(cfg, u_B, num_tokens=tokens_B), [0.5, 0.8], rtol=1e-6)


def test_schedule_falls_from_one_to_zero():
    np.testing.assert_allclose(schedule(4), [1, 0.75, 0.5, 0.25, 0])
    times = schedule(10, 5.0)
    assert times.shape == (11,) and times[0] == 1 and times[-1] == 0 and np.all(np.diff(times) < 0)
    np.testing.assert_allclose(shift_timesteps(times, 1 / 5.0), schedule(10), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TimestepConfig("normal"), "'normal' is unknown"),
        (lambda: TimestepConfig(std=0.0), "std is 0.0"),
        (lambda: TimestepConfig(shift=-1.0), "shift is -1.0"),
        (lambda: TimestepConfig(base_tokens=0), "base_tokens is 0"),
        (lambda: schedule(0), "0 steps"),
        (lambda: schedule(4, 0.0), "shift is 0.0"),
        (lambda: schedule(4, t_min=1.0), "t_min is 1.0"),
        (lambda: schedule(4, t_max=1.1), "t_max 1.1"),
        (lambda: schedule(4, closed=True), "must be above 0"),
    ],
)
def test_senseless_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
