"""diffusers' schedulers: the times that they visit and tell, and trajectories, step for step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.reference import GOLDENS
from videodit.diffusion.path import over
from videodit.diffusion.solvers import integrate
from videodit.interop import schedulers

CONFIG = GOLDENS / "schedulers" / "config.json"
CASES = json.loads(CONFIG.read_text()) if CONFIG.is_file() else {"absent": {}}
every_case = pytest.mark.parametrize("name", CASES)
UNIPC = {"_class_name": schedulers.UNIPC, "flow_shift": 3.0}


def facts_of(case):
    return case["config"] | {"_class_name": case["class"]}


def velocity(x, t_B):
    """That of the reference, whose model is told `t_B`."""
    return jnp.tanh(0.7 * x) - 0.3 * x * (1 - over(t_B, x)) + 0.05


@every_case
def test_times_are_those_of_the_reference(golden, name):
    io, case = golden("schedulers").io, CASES[name]
    visited, told = schedulers.times(facts_of(case), case["steps"], **case["set_timesteps"])
    np.testing.assert_allclose(visited, io[f"{name}.sigmas"], atol=2e-6)
    np.testing.assert_allclose(1000 * told[:-1], io[f"{name}.timesteps"], atol=1e-3)


@every_case
def test_trajectories_are_those_of_the_reference(golden, name):
    io, case = golden("schedulers").io, CASES[name]
    facts = facts_of(case)
    visited, told = schedulers.times(facts, case["steps"], **case["set_timesteps"])
    path = io.get(f"{name}.x", io[f"{name}.x_last"][None])  # after every step, or after the last one
    solver, found = schedulers.solver(facts), []
    carry, rows = solver.init(jnp.asarray(io["in.x"])), solver.table(visited)

    def heard(x, t):
        return velocity(x, jnp.full(len(x), told[np.abs(visited - t).argmin()], x.dtype))

    for step in range(len(visited) - 1):
        carry = solver.step(
            heard, carry, jax.tree.map(lambda row, step=step: jnp.asarray(row[step], jnp.float32), rows)
        )
        found.append(carry[0])
    if len(path) == len(found):
        for here, there in zip(found, path, strict=True):
            # The reference's B(h) = h ends in no number at all, and only there.
            if np.isfinite(there).all():
                assert np.linalg.norm(here - there) <= 1e-5 * np.linalg.norm(there)
        assert np.isfinite(path[:-1]).all()
    whole = integrate(solver, velocity, jnp.asarray(io["in.x"]), visited, told)
    np.testing.assert_allclose(whole, found[-1], rtol=1e-5, atol=1e-6)
    if np.isfinite(path[-1]).all():
        assert np.linalg.norm(whole - path[-1]) <= 1e-5 * np.linalg.norm(path[-1])


@every_case
def test_a_sampler_with_a_fixed_shift_is_the_scheduler(name):
    facts, case = facts_of(CASES[name]), CASES[name]
    if any(facts.get(option) for option in ("use_dynamic_shifting", "use_karras_sigmas", "shift_terminal")):
        with pytest.raises(ValueError, match="a sampler has a fixed shift"):
            schedulers.sampler(facts, case["steps"])
    elif case["steps"]:
        visited, _ = schedulers.times(facts, case["steps"])
        np.testing.assert_allclose(schedulers.sampler(facts, case["steps"]).times(), visited, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "DDIMScheduler"}, "the scheduler is DDIMScheduler: those supported are FlowMatchEuler"),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon' .* only 'flow_prediction' is supported"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500 .* only 1000 is supported"),
        ({"disable_corrector": [0]}, r"disable_corrector is \[0\] .* only \[\] is supported"),
        ({"lower_order_final": False}, "lower_order_final is False"),
        ({"use_beta_sigmas": True}, "use_beta_sigmas is True"),
    ],
)
def test_other_schedulers_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        schedulers.sampler(UNIPC | change, 10)


def test_a_shift_that_depends_on_the_clip_needs_to_be_said():
    facts = {"_class_name": schedulers.EULER, "use_dynamic_shifting": True}
    with pytest.raises(ValueError, match="mu says how far"):
        schedulers.times(facts, 10)


def test_only_euler_s_schedule_takes_sigmas_and_mu():
    with pytest.raises(ValueError, match="only FlowMatchEulerDiscreteScheduler takes mu and sigmas"):
        schedulers.times(UNIPC, 4, mu=1.0)


def test_dpm_s_told_times_are_rounded_down_as_the_reference_does():
    """Without a shift, thirds of 999 thousandths are whole ones but for the last bit; figures of diffusers 0.42.1."""
    facts = {"_class_name": schedulers.DPM, "flow_shift": 1.0}
    told = {steps: (1000 * schedulers.times(facts, steps)[1]).round(6).tolist()[:-1] for steps in (3, 9)}
    assert told == {3: [999, 666, 332], 9: [999, 888, 777, 666, 555, 443, 332, 221, 110]}
