import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.diffusion.path import over
from videodit.diffusion.solvers import dpmpp, euler, heun, integrate, unipc
from videodit.diffusion.timesteps import schedule

SOLVERS = {"euler": euler(), "heun": heun(), "bh1": unipc(2, "bh1"), "dpmpp": dpmpp()}
SOLVERS |= {f"unipc{order}": unipc(order) for order in (1, 2, 3)}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)

MEAN, STD = 0.7, 0.3


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def variance(t):
    return (1 - t) ** 2 * STD**2 + t**2


def gaussian_velocity(x, t_B):
    """Return the exact velocity, E[noise - data | x_t = x], for data ~ N(MEAN, STD^2)."""
    t = over(t_B, x)
    return -MEAN + (t - (1 - t) * STD**2) / variance(t) * (x - (1 - t) * MEAN)


def gaussian_flow(x, start, end):
    """Carry `x` along the exact flow from time `start` to `end`, which preserves its standard score."""
    return (1 - end) * MEAN + np.sqrt(variance(end) / variance(start)) * (x - (1 - start) * MEAN)


# Within (0, 1) UniC lifts UniPC to one order more than its name; a grid that ends at t = 0 ends in a first-order step.
@pytest.mark.parametrize(
    ("name", "start", "end", "steps", "order"),
    [
        ("euler", 0.9, 0.1, 80, 1),
        ("heun", 0.9, 0.1, 80, 2),
        ("unipc1", 0.9, 0.1, 80, 2),
        ("unipc2", 0.9, 0.1, 160, 3),
        ("unipc3", 0.9, 0.1, 320, 4),
        ("bh1", 0.9, 0.1, 160, 3),
        ("dpmpp", 0.9, 0.1, 160, 2),
        ("euler", 1.0, 0.0, 80, 1),
        ("heun", 1.0, 0.0, 80, 2),
        ("unipc2", 1.0, 0.0, 160, 2),
        ("unipc3", 1.0, 0.0, 320, 2),
    ],
)
def test_order_of_convergence(name, start, end, steps, order):
    with jax.enable_x64(True):
        x = jnp.linspace(-2.0, 2.0, 9)[:, None]

        def error(steps):
            out = integrate(SOLVERS[name], gaussian_velocity, x, np.linspace(start, end, steps + 1))
            return float(jnp.max(jnp.abs(out - gaussian_flow(x, start, end))))

        observed = np.log2(error(steps) / error(2 * steps))
    assert observed == pytest.approx(order, abs=0.25)


@every_solver
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_constant_velocity_is_crossed_exactly(solver, steps):
    noise, v = normal(2, 3, 2, 4)
    out = integrate(solver, lambda x, t_B: v, noise, schedule(steps, 3.0))
    np.testing.assert_allclose(out, noise - v, atol=2e-6)


@pytest.mark.parametrize("name", ["euler", "unipc1", "unipc2", "unipc3"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_paths_to_one_point_are_straight_and_end_there(name, steps):
    point, noise = normal(2, 3, 2, 4)
    out = integrate(SOLVERS[name], lambda x, t_B: (x - point) / over(t_B, x), noise, schedule(steps, 3.0))
    np.testing.assert_allclose(out, point, atol=2e-6)


@every_solver
def test_noise_becomes_the_gaussian_it_should(solver):
    noise = normal(20000, 1)
    data = jax.jit(lambda noise: integrate(solver, gaussian_velocity, noise, schedule(100)))(noise)
    assert float(data.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(data.std()) == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize(("name", "calls"), [("euler", 1), ("heun", 2), ("unipc2", 1), ("unipc3", 1), ("dpmpp", 1)])
def test_evaluations_a_step_in_a_single_scan(name, calls):
    times = []

    def velocity(x, t_B):
        jax.debug.callback(lambda t: times.append(float(t)), t_B[0])
        return x

    def run(noise):
        return integrate(SOLVERS[name], velocity, noise, schedule(5))

    jax.block_until_ready(jax.jit(run)(jnp.ones((2, 3))))
    jax.effects_barrier()
    assert len(times) == 5 * calls
    assert set(np.round(times, 5)) == set(np.round(schedule(5)[: 5 + (calls == 2)], 5))
    assert sum(eqn.primitive.name == "scan" for eqn in jax.make_jaxpr(run)(jnp.ones((2, 3))).eqns) == 1


@every_solver
def test_the_state_is_float32_for_a_bfloat16_model(solver):
    noise = normal(2, 3).astype(jnp.bfloat16)

    def velocity(x, t_B):
        assert x.dtype == t_B.dtype == jnp.float32
        return x.astype(jnp.bfloat16)

    assert integrate(solver, velocity, noise, schedule(3)).dtype == jnp.float32


def test_a_sharded_batch_gives_the_same_samples():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    noise = normal(8, 4)
    sharded_noise = jax.device_put(noise, jax.NamedSharding(mesh, jax.P("data")))
    run = jax.jit(lambda noise: integrate(unipc(2), gaussian_velocity, noise, schedule(6)))
    out = run(sharded_noise)
    assert out.sharding.is_equivalent_to(sharded_noise.sharding, out.ndim)
    np.testing.assert_allclose(out, run(noise), rtol=1e-6)


@pytest.mark.parametrize("times", [[1.0], [0.0, 1.0], [1.0, 0.5, 0.5], [1.5, 0.0], [1.0, -0.1]])
def test_times_that_do_not_fall_within_the_path_are_refused(times):
    with pytest.raises(ValueError, match="falling"):
        integrate(euler(), lambda x, t_B: x, jnp.ones((1, 1)), np.array(times))


def test_model_timesteps_are_passed_to_the_model():
    timesteps = []

    def velocity(x, t_B):
        jax.debug.callback(lambda t: timesteps.append(round(float(t), 4)), t_B[0])
        return x

    jax.block_until_ready(
        integrate(euler(), velocity, jnp.ones((2, 3)), schedule(4), np.array([0.9, 0.7, 0.4, 0.2, 0]))
    )
    jax.effects_barrier()
    assert sorted(timesteps, reverse=True) == [0.9, 0.7, 0.4, 0.2]


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order 4"):
        unipc(4)
