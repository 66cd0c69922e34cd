"""diffusers' schedulers: the times that they visit and tell, and trajectories, step for step."""

import json

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
    # The reference's B(h) = h ends in no number at all.
    steps = len(visited) - (2 if facts.get("solver_type") == "bh1" else 1)
    noise, solver = jnp.asarray(io["in.x"]), schedulers.solver(facts)
    found = integrate(solver, velocity, noise, visited[: steps + 1], told[: steps + 1])
    want = path[steps - 1] if len(path) > 1 else path[0]
    assert np.linalg.norm(found - want) <= 1e-5 * np.linalg.norm(want)


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
    ],
)
def test_other_schedulers_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        schedulers.sampler(UNIPC | change, 10)


def test_a_shift_that_depends_on_the_clip_needs_to_be_said():
    facts = {"_class_name": schedulers.EULER, "use_dynamic_shifting": True}
    with pytest.raises(ValueError, match="mu says how far"):
        schedulers.times(facts, 10)
