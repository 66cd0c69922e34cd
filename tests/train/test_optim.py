import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from videodit.config.optim import OptimConfig
from videodit.nn.linear import Linear
from videodit.nn.param import matrix_axes
from videodit.nn.stack import Stack
from videodit.train.optim import decay_mask, ema_decay, learning_rate, make_optimizer, update_ema


def rates(steps, **options):
    schedule = learning_rate(OptimConfig(lr=2.0, **options), steps)
    return np.array([schedule(jnp.int32(i)) for i in range(steps + 1)])


def test_warm_up_is_linear_whatever_follows():
    for schedule in ("cosine", "wsd", "constant"):
        np.testing.assert_allclose(rates(20, schedule=schedule, warmup=4)[:5], [0, 0.5, 1, 1.5, 2], rtol=1e-6)


def test_cosine_ends_at_its_final_part_and_is_half_way_in_the_middle():
    values = rates(20, warmup=4, final=0.1)
    np.testing.assert_allclose(values[[12, 20]], [(2 + 0.2) / 2, 0.2], rtol=1e-5)
    assert (np.diff(values[4:]) < 0).all()


def test_wsd_holds_the_peak_and_falls_linearly_at_the_end():
    values = rates(20, schedule="wsd", warmup=4, decay=5)
    np.testing.assert_allclose(values[4:16], 2)
    np.testing.assert_allclose(np.diff(values[15:]), -0.4, rtol=1e-5)
    np.testing.assert_allclose(values[-1], 0, atol=1e-6)


def test_a_schedule_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="8 steps of warm-up and 5 of decay do not fit in a run of 10 steps"):
        learning_rate(OptimConfig(schedule="wsd", warmup=8, decay=5), 10)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"warmup": -1}, {"micro_batches": 0}, {"clip": -1.0}])
def test_senseless_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OptimConfig(**wrong)


def test_only_kernels_decay():
    params = {
        "a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2)},
        "table": jnp.ones((3, 2)),
    }
    assert decay_mask(params) == {"a": {"kernel": True, "bias": False}, "norm": {"scale": False}, "table": False}
    cfg = OptimConfig(lr=0.1, weight_decay=0.5, schedule="constant")
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["a"]["kernel"], 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(after["table"], 1)


def test_clipping_bounds_the_gradient_that_adam_sees():
    params = {"kernel": jnp.zeros(3)}
    grads = {"kernel": jnp.array([300.0, 0.0, 400.0])}
    for clip, norm in ((1.0, 1.0), (0.0, 500.0)):
        cfg = OptimConfig(clip=clip)
        optimizer = make_optimizer(cfg, learning_rate(cfg, 10))
        _, state = optimizer.update(grads, optimizer.init(params), params)
        mu = optax.tree.get(state, "mu")["kernel"]
        np.testing.assert_allclose(np.linalg.norm(mu) / (1 - cfg.b1), norm, rtol=1e-5)


def test_muon_turns_the_matrices_of_stacks_by_orthogonal_updates_of_a_set_size():
    model = Stack(
        lambda rngs: Linear({"embed": 8}, {"heads": 2, "head_dim": 2}, rngs=rngs), 3, remat="none", rngs=nnx.Rngs(0)
    )
    state = nnx.state(model, nnx.Param)
    params, axes = nnx.to_pure_dict(state), nnx.to_pure_dict(matrix_axes(state))
    cfg = OptimConfig(kind="muon", lr=0.5, muon_rms=0.2, weight_decay=0.0, schedule="constant")
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10), axes)
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    kernel = -np.asarray(updates["blocks"]["kernel"]).reshape(3, 8, 4)
    for update, grad in zip(kernel, np.asarray(grads["blocks"]["kernel"]).reshape(3, 8, 4), strict=True):
        u, _, vt = np.linalg.svd(grad, full_matrices=False)
        # Newton-Schulz with Muon's coefficients ends within 0.7 to 1.2 of one.
        singular = np.diag(u.T @ update @ vt.T) / (0.5 * 0.2 * np.sqrt(8))
        assert singular.min() > 0.6 and singular.max() < 1.3
    bias = np.asarray(updates["blocks"]["bias"])
    np.testing.assert_array_equal(np.sign(bias), -np.sign(grads["blocks"]["bias"]))
    assert np.ptp(np.abs(bias)) < 1e-3 < np.abs(bias).min(), "biases take Adam's steps, all of one size at first"


def test_muon_decays_kernels_as_adamw_does():
    params = {"kernel": jnp.ones((2, 3, 3)), "bias": jnp.ones(3)}
    axes = {"kernel": ((1,), (2,)), "bias": None}
    cfg = OptimConfig(kind="muon", lr=0.1, weight_decay=0.5, schedule="constant")
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10), axes)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_the_average_forgets_the_init_early_and_settles_at_its_decay():
    assert float(ema_decay(0.999, jnp.int32(0))) == pytest.approx(0.1)
    assert float(ema_decay(0.999, jnp.int32(10**6))) == pytest.approx(0.999)
    ema = params = {"w": jnp.zeros(())}
    for step in range(50):
        params = {"w": jnp.ones(())}
        ema = update_ema(ema, params, ema_decay(0.999, jnp.int32(step)))
    assert float(ema["w"]) > 0.99999
