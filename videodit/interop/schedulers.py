"""diffusers' schedulers as samplers of ours."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import shift_timesteps
from videodit.provenance import JSON

EULER, UNIPC, DPM = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"

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
