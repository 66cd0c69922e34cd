"""diffusers' schedulers as they run: the times they visit, the timesteps they pass to the model, and their solver."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from videodit.diffusion.sample import SamplerConfig, make_solver, quantize_timesteps
from videodit.diffusion.solvers import Solver
from videodit.diffusion.timesteps import schedule, shift_timesteps

EULER, UNIPC, DPM = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"
Times = Float[np.ndarray, "points"]

# What the reference's options have to be for its arithmetic to be ours.
_ALL = {"num_train_timesteps": 1000, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_MULTISTEP = _ALL | {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
    "use_karras_sigmas": False,
    "use_dynamic_shifting": False,
    "thresholding": False,
}
WANTED: dict[str, dict[str, Any]] = {
    EULER: _ALL | {"stochastic_sampling": False, "invert_sigmas": False},
    UNIPC: _MULTISTEP
    | {
        "predict_x0": True,
        "disable_corrector": [],
        "solver_p": None,
        "shift_terminal": None,
        "lower_order_final": True,
    },
    DPM: _MULTISTEP
    | {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "solver_order": 2, "use_lu_lambdas": False},
}


def sampler(facts: Mapping[str, Any], steps: int, guidance: float = 1.0) -> SamplerConfig:
    """The sampler of a `scheduler_config.json` with a fixed shift.

    Raises:
        ValueError: for a scheduler or an option that is not supported, and for a shift that depends on the clip.
    """
    kind = check(facts)
    for name in ("use_dynamic_shifting", "use_karras_sigmas", "shift_terminal"):
        if facts.get(name):
            raise ValueError(f"{name} is {facts[name]!r} in the scheduler's configuration: a sampler has a fixed shift")
    shift = float(facts.get("shift", 1.0) if kind == EULER else facts.get("flow_shift", 1.0))
    cfg = SamplerConfig(steps=steps, guidance=guidance, shift=shift, order=facts.get("solver_order", 2))
    if kind == EULER:  # its first and last sigma have been shifted before they are shifted with all others
        return replace(cfg, t_min=_least(facts, shift), closed=True, solver="euler")
    if kind == DPM:
        return replace(cfg, t_max=1 - _least(facts), quantize_timesteps=True, solver="dpmpp")
    name = "unipc_bh1" if facts.get("solver_type") == "bh1" else "unipc"
    return replace(cfg, t_min=_least(facts), quantize_timesteps=True, solver=name)


def times(
    facts: Mapping[str, Any], steps: int | None, *, mu: float | None = None, sigmas: Sequence[float] | None = None
) -> tuple[Times, Times]:
    """Return the times that a scheduler visits, and the timestep that it passes to the model at each.

    Args:
        facts: its configuration.
        steps: their number, where `sigmas` does not say it.
        mu: of a shift that depends on the clip: its logarithm, or itself where `time_shift_type` is linear.
        sigmas: times before the shift, for Euler's, in place of even ones.

    Raises:
        ValueError: as `sampler`; for a dynamic shift without `mu`, and where only Euler's heeds `mu` or `sigmas`.
    """
    kind = check(facts)
    if kind != EULER:
        if mu is not None or sigmas is not None:
            raise ValueError(f"the scheduler is {kind}: only {EULER} takes mu and sigmas")
        visited = sampler(facts, steps or 0).times()
        return visited, quantize_timesteps(visited)
    dynamic, shift = bool(facts.get("use_dynamic_shifting")), float(facts.get("shift", 1.0))
    if dynamic and mu is None:
        raise ValueError("the scheduler shifts times with the size of the clip (use_dynamic_shifting): mu says how far")
    if dynamic:
        shift = math.exp(mu) if facts.get("time_shift_type", "exponential") == "exponential" else mu
    if sigmas is None:
        even = schedule(steps, t_min=_least(facts, 1.0 if dynamic else shift), closed=True)[:-1]
    else:
        even = np.asarray(sigmas, np.float64)
    moved = shift_timesteps(even, shift)
    if facts.get("shift_terminal"):
        moved = 1 - (1 - moved) * (1 - facts["shift_terminal"]) / (1 - moved[-1])
    if facts.get("use_karras_sigmas"):
        moved = np.linspace(moved[0] ** (1 / 7), moved[-1] ** (1 / 7), len(moved)) ** 7
    visited = np.append(moved, 0.0)
    return visited, visited


def solver(facts: Mapping[str, Any]) -> Solver:
    """What carries a scheduler from one time to the next."""
    if check(facts) == EULER:
        return make_solver("euler")
    cfg = sampler(facts, 1)
    return make_solver(cfg.solver, cfg.order)


def check(facts: Mapping[str, Any]) -> str:
    """The kind of a scheduler.

    Raises:
        ValueError: for one that is not supported, and for an option whose arithmetic is not ours.
    """
    kind = facts.get("_class_name")
    if kind not in WANTED:
        raise ValueError(f"the scheduler is {kind}: those supported are {', '.join(WANTED)}")
    for name, value in WANTED[kind].items():
        if facts.get(name, value) != value:
            raise ValueError(f"{name} is {facts[name]!r} in the scheduler's configuration: only {value!r} is supported")
    return kind


def _least(facts: Mapping[str, Any], shift: float = 1.0) -> float:
    return float(shift_timesteps(np.array([1 / facts.get("num_train_timesteps", 1000)]), shift)[0])
