"""diffusers' schedulers as samplers of ours: the times that they visit, the timesteps of the model, and the solver."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from videodit.diffusion.sample import SamplerConfig, make_solver, quantize_timesteps
from videodit.diffusion.solvers import Solver
from videodit.diffusion.timesteps import schedule, shift_timesteps
from videodit.provenance import JSON

EULER, UNIPC, DPM = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"
Times = Float[np.ndarray, "points"]

_ALL = {"num_train_timesteps": 1000, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_MULTISTEP = _ALL | {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
    "use_karras_sigmas": False,
    "use_dynamic_shifting": False,
    "thresholding": False,
}
SUPPORTED_OPTIONS: dict[str, dict[str, JSON]] = {
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
"""By scheduler: the option values for which its arithmetic equals ours."""


def parse_sampler(fields: Mapping[str, JSON], steps: int, guidance: float = 1.0) -> SamplerConfig:
    """Return the sampler that a `scheduler_config.json` with a fixed shift describes.

    Raises:
        ValueError: if the scheduler or an option is not supported, or the shift depends on the clip.
    """
    kind = check(fields)
    for name in ("use_dynamic_shifting", "use_karras_sigmas", "shift_terminal"):
        if fields.get(name):
            raise ValueError(
                f"{name} is {fields[name]!r} in the scheduler's configuration: a sampler has a fixed shift"
            )
    shift = float(fields.get("shift", 1.0) if kind == EULER else fields.get("flow_shift", 1.0))
    cfg = SamplerConfig(steps=steps, guidance=guidance, shift=shift, order=fields.get("solver_order", 2))
    if kind == EULER:  # its first and last sigma are shifted twice
        return replace(cfg, t_min=_smallest_time(fields, shift), closed=True, solver="euler")
    if kind == DPM:
        return replace(cfg, t_max=1 - _smallest_time(fields), quantize_timesteps=True, solver="dpmpp")
    name = "unipc_bh1" if fields.get("solver_type") == "bh1" else "unipc"
    return replace(cfg, t_min=_smallest_time(fields), quantize_timesteps=True, solver=name)


def compute_times(
    fields: Mapping[str, JSON], steps: int | None, *, mu: float | None = None, sigmas: Sequence[float] | None = None
) -> tuple[Times, Times]:
    """Return the times that a scheduler visits, and the timestep that the model is called with at each.

    Args:
        fields: its `scheduler_config.json`.
        steps: the number of solver steps, unless `sigmas` are passed.
        mu: the logarithm of a shift that depends on the clip; the shift itself if `time_shift_type` is linear.
        sigmas: Euler's times before the shift, in place of evenly spaced ones.

    Raises:
        ValueError: as `parse_sampler`; also for a dynamic shift without `mu`, and for `mu` or `sigmas` of another
            scheduler than Euler's.
    """
    kind = check(fields)
    if kind != EULER:
        if mu is not None or sigmas is not None:
            raise ValueError(f"the scheduler is {kind}: only {EULER} takes mu and sigmas")
        times = parse_sampler(fields, steps or 0).times()
        return times, quantize_timesteps(times)
    dynamic, shift = bool(fields.get("use_dynamic_shifting")), float(fields.get("shift", 1.0))
    if dynamic and mu is None:
        raise ValueError("the scheduler's shift depends on the size of the clip (use_dynamic_shifting): pass mu")
    if dynamic:
        shift = math.exp(mu) if fields.get("time_shift_type", "exponential") == "exponential" else mu
    if sigmas is None:
        unshifted = schedule(steps, t_min=_smallest_time(fields, 1.0 if dynamic else shift), closed=True)[:-1]
    else:
        unshifted = np.asarray(sigmas, np.float64)
    shifted = shift_timesteps(unshifted, shift)
    if fields.get("shift_terminal"):
        shifted = 1 - (1 - shifted) * (1 - fields["shift_terminal"]) / (1 - shifted[-1])
    if fields.get("use_karras_sigmas"):
        shifted = np.linspace(shifted[0] ** (1 / 7), shifted[-1] ** (1 / 7), len(shifted)) ** 7
    times = np.append(shifted, 0.0)
    return times, times


def build_solver(fields: Mapping[str, JSON]) -> Solver:
    """Return the solver of a scheduler."""
    if check(fields) == EULER:
        return make_solver("euler")
    cfg = parse_sampler(fields, 1)
    return make_solver(cfg.solver, cfg.order)


def check(fields: Mapping[str, JSON]) -> str:
    """Return the class of a scheduler.

    Raises:
        ValueError: if it or one of its options is not supported.
    """
    kind = fields.get("_class_name")
    if kind not in SUPPORTED_OPTIONS:
        raise ValueError(f"the scheduler is {kind}: those supported are {', '.join(SUPPORTED_OPTIONS)}")
    for name, value in SUPPORTED_OPTIONS[kind].items():
        if fields.get(name, value) != value:
            raise ValueError(
                f"{name} is {fields[name]!r} in the scheduler's configuration: only {value!r} is supported"
            )
    return kind


def _smallest_time(fields: Mapping[str, JSON], shift: float = 1.0) -> float:
    return float(shift_timesteps(np.array([1 / fields.get("num_train_timesteps", 1000)]), shift)[0])
