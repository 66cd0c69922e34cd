import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from videodit.config.optim import OptimConfig
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.precision import apply_updates, cast, round_randomly, store_state_in


def test_random_rounding_takes_one_of_the_neighbors_and_is_right_on_average():
    x = jnp.array([1.001, -3.14159, 1e-20, 0.0, 65280.0, -1.0])
    keys = jax.random.split(jax.random.key(0), 4096)
    samples = np.asarray(jax.vmap(lambda key: round_randomly(x, key))(keys), np.float64)
    gap = np.abs(x) * 2.0**-7
    assert (np.abs(samples - np.asarray(x)) <= gap).all()
    assert (np.abs(samples.mean(0) - np.asarray(x)) <= 5 * gap / np.sqrt(4096)).all()
    np.testing.assert_array_equal(samples[:, 3:], np.broadcast_to(x[3:], (4096, 3)), "what bfloat16 has stays")


def test_small_steps_of_bfloat16_parameters_add_up():
    params = {"w": jnp.ones((512,), jnp.bfloat16)}
    step = jax.jit(lambda params, key: apply_updates(params, {"w": jnp.full((512,), 1e-4)}, key))
    for i in range(200):
        params = step(params, jax.random.key(i))
    assert params["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(params["w"].astype(jnp.float32).mean(), 1.02, atol=2e-3)  # rounded to nearest: 1.0


def test_float32_is_left_alone():
    params, updates = {"w": jnp.float32([1.0])}, {"w": jnp.float32([1e-6])}
    moved = apply_updates(params, updates, jax.random.key(0))
    np.testing.assert_array_equal(moved["w"], optax.apply_updates(params, updates)["w"])


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_moments_in_bfloat16_are_computed_in_float32(kind):
    cfg = OptimConfig(kind=kind, lr=0.1, schedule="constant", clip=0.0)
    plain = make_optimizer(cfg, learning_rate(cfg, 10))
    short = store_state_in(plain, "bfloat16")
    params = {"kernel": jax.random.normal(jax.random.key(0), (256, 128))}
    states = [plain.init(params), short.init(cast(params, jnp.bfloat16))]
    floats = [x for x in jax.tree.leaves(states[1]) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert floats and all(x.dtype == jnp.bfloat16 for x in floats)
    for i in range(4):
        grads = {"kernel": jax.random.normal(jax.random.key(1 + i), (256, 128))}
        (exact, states[0]), (found, states[1]) = (
            optimizer.update(grads, state, params) for optimizer, state in zip((plain, short), states, strict=True)
        )
        assert found["kernel"].dtype == jnp.float32
        np.testing.assert_allclose(found["kernel"], exact["kernel"], atol=0.1 * 0.02)


def test_moments_that_would_stand_still_are_refused():
    with pytest.raises(ValueError, match=r"b2 is 0\.999: moments in bfloat16 stand still"):
        OptimConfig(moments="bfloat16", b2=0.999)
