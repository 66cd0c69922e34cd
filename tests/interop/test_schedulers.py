"""diffusers' schedulers: times, model timesteps, and trajectories step by step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.reference import GOLDENS
from videodit.diffusion.path import over
from videodit.diffusion.sample import make_solver
from videodit.diffusion.solvers import integrate
from videodit.interop import schedulers

CONFIG = GOLDENS / "schedulers" / "config.json"
CASES = json.loads(CONFIG.read_text()) if CONFIG.is_file() else {"absent": {}}
DYNAMIC = ("use_dynamic_shifting", "use_karras_sigmas", "shift_terminal")
FIXED = [
    name
    for name, case in CASES.items()
    if case and not case["set_timesteps"] and not any(case["config"].get(option) for option in DYNAMIC)
] or ["absent"]
every_case = pytest.mark.parametrize("name", FIXED)
UNIPC = {"_class_name": schedulers.UNIPC, "flow_shift": 3.0}


def fields_of(case):
    return case["config"] | {"_class_name": case["class"]}


def sampler_of(case):
    """Return the sampler, the times that it visits, and the timesteps of the model."""
    sampler = schedulers.parse_sampler(fields_of(case), case["steps"])
    times = sampler.times()
    model_timesteps = sampler.model_timesteps(times)
    return sampler, times, times if model_timesteps is None else model_timesteps


def velocity(x, t_B):
    """Return the velocity of the reference cases, a function of the model's timestep `t_B`."""
    return jnp.tanh(0.7 * x) - 0.3 * x * (1 - over(t_B, x)) + 0.05


@pytest.mark.skipif(not CONFIG.is_file(), reason="no goldens at ../shared")
def test_all_cases_but_those_that_samplers_refuse_are_compared():
    assert len(CASES) - len(FIXED) == 5


@every_case
def test_times_are_those_of_the_reference(golden, name):
    io, case = golden("schedulers").io, CASES[name]
    _, times, model_timesteps = sampler_of(case)
    np.testing.assert_allclose(times, io[f"{name}.sigmas"], atol=2e-6)
    np.testing.assert_allclose(1000 * model_timesteps[:-1], io[f"{name}.timesteps"], atol=1e-3)


@every_case
def test_trajectories_are_those_of_the_reference(golden, name):
    io, case = golden("schedulers").io, CASES[name]
    sampler, times, model_timesteps = sampler_of(case)
    path = io.get(f"{name}.x", io[f"{name}.x_last"][None])  # after every step, or after the last one
    solver, steps = make_solver(sampler.solver, sampler.order), []
    carry, rows = solver.init(jnp.asarray(io["in.x"])), solver.table(times)

    def stepwise_velocity(x, t):
        return velocity(x, jnp.full(len(x), model_timesteps[np.abs(times - t).argmin()], x.dtype))

    for step in range(len(times) - 1):
        carry = solver.step(
            stepwise_velocity, carry, jax.tree.map(lambda row, step=step: jnp.asarray(row[step], jnp.float32), rows)
        )
        steps.append(carry[0])
    if len(path) == len(steps):
        for ours, theirs in zip(steps, path, strict=True):
            # The reference's B(h) = h ends in NaN, and only at the last step.
            if np.isfinite(theirs).all():
                assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
        assert np.isfinite(path[:-1]).all()
    integrated = integrate(solver, velocity, jnp.asarray(io["in.x"]), times, model_timesteps)
    np.testing.assert_allclose(integrated, steps[-1], rtol=1e-5, atol=1e-6)
    if np.isfinite(path[-1]).all():
        assert np.linalg.norm(integrated - path[-1]) <= 1e-5 * np.linalg.norm(path[-1])


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_shift_that_is_not_fixed_is_refused(name):
    fields = {"_class_name": schedulers.EULER, name: 0.1 if name == "shift_terminal" else True}
    with pytest.raises(ValueError, match=f"{name} is .*: a sampler has a fixed shift"):
        schedulers.parse_sampler(fields, 10)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "DDIMScheduler"}, "_class_name is DDIMScheduler: the schedulers supported are FlowMatchEuler"),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon' .* only 'flow_prediction' is supported"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500 .* only 1000 is supported"),
        ({"disable_corrector": [0]}, r"disable_corrector is \[0\] .* only \[\] is supported"),
        ({"lower_order_final": False}, "lower_order_final is False"),
        ({"use_beta_sigmas": True}, "use_beta_sigmas is True"),
    ],
)
def test_other_schedulers_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        schedulers.parse_sampler(UNIPC | change, 10)


def test_dpm_s_timesteps_are_rounded_down_as_the_reference_does():
    """Thirds of 0.999 are multiples of 0.001 but for the last bit; values of diffusers 0.42.1."""
    case = {"config": {"flow_shift": 1.0}, "class": schedulers.DPM}
    timesteps = {n: (1000 * sampler_of(case | {"steps": n})[2]).round(6).tolist()[:-1] for n in (3, 9)}
    assert timesteps == {3: [999, 666, 332], 9: [999, 888, 777, 666, 555, 443, 332, 221, 110]}
