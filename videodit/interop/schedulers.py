"""diffusers' schedulers as samplers of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from videodit.config.schema import from_tree, printable, shorten
from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import shift_timesteps
from videodit.provenance import JSON
from videodit.ranges import Positive, Range, check_ranges

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


@dataclass(frozen=True)
class _Fields:
    """What is read of a `scheduler_config.json`, beside its class and the options that are fixed."""

    shift: Positive = 1.0
    flow_shift: Positive = 1.0
    solver_order: Annotated[int, Range(1, 3)] = 2
    solver_type: str | None = None

    def __post_init__(self):
        check_ranges(self)


def parse_sampler(fields: Mapping[str, JSON], steps: int, guidance: float = 1.0) -> SamplerConfig:
    """Return the sampler that a `scheduler_config.json` with a fixed shift describes.

    Raises:
        ValueError: if the scheduler or an option is not supported, the shift depends on the clip, or a field has a
            wrong type or is out of range.
    """
    kind = check(fields)
    for name in ("use_dynamic_shifting", "use_karras_sigmas", "shift_terminal"):
        if fields.get(name):
            raise ValueError(
                f"{name} is {shorten(fields[name])} in the scheduler's configuration: a sampler has a fixed shift"
            )
    scheduler = from_tree(_Fields, fields, ignore_unknown=True)
    shift = scheduler.shift if kind == EULER else scheduler.flow_shift
    cfg = SamplerConfig(steps=steps, guidance=guidance, shift=shift, order=scheduler.solver_order)
    if kind == EULER:  # its first and last sigma are shifted twice
        return replace(cfg, t_min=_smallest_time(shift), closed=True, solver="euler")
    if kind == DPM:
        return replace(cfg, t_max=1 - _smallest_time(), quantize_timesteps=True, solver="dpmpp")
    name = "unipc_bh1" if scheduler.solver_type == "bh1" else "unipc"
    return replace(cfg, t_min=_smallest_time(), quantize_timesteps=True, solver=name)


def check(fields: Mapping[str, JSON]) -> str:
    """Return the class of a scheduler.

    Raises:
        ValueError: if it or one of its options is not supported.
    """
    kind = fields.get("_class_name")
    if not isinstance(kind, str) or kind not in SUPPORTED_OPTIONS:
        raise ValueError(
            f"_class_name is {printable(kind)}: the schedulers supported are {', '.join(SUPPORTED_OPTIONS)}"
        )
    for name, value in SUPPORTED_OPTIONS[kind].items():
        if fields.get(name, value) != value:
            raise ValueError(
                f"{name} is {shorten(fields[name])} in the scheduler's configuration: "
                f"only {shorten(value)} is supported"
            )
    return kind


def _smallest_time(shift: float = 1.0) -> float:
    return float(shift_timesteps(np.array([1 / _ALL["num_train_timesteps"]]), shift)[0])
