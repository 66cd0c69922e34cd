"""Sampling: integrate from noise to data with a solver, a schedule of times and guidance."""

import functools
from dataclasses import dataclass, replace
from typing import Annotated

import jax
import numpy as np
from jaxtyping import Array, Float

from videodit.diffusion.guidance import Condition, ConditionalVelocityFn, guided
from videodit.diffusion.solvers import Solver, dpmpp, euler, heun, integrate, unipc
from videodit.diffusion.timesteps import resolution_shift, schedule
from videodit.ranges import Guidance, Positive, Range, Share, Size, check_ranges

SOLVERS = ("unipc", "unipc_bh1", "dpmpp", "euler", "heun")


@dataclass(frozen=True)
class SamplerConfig:
    """Solver, schedule and guidance of a sampler.

    Attributes:
        steps: solver steps; a step of Heun evaluates the model twice, a step of the others once.
        shift, base_tokens: as in training (`TimestepConfig`): more of the steps near the noise.
        t_min, t_max, closed: as in `schedule`.
        quantize_timesteps: whether the model gets times rounded down to multiples of 0.001, as in diffusers' samplers
            other than Euler.
        solver: one of `SOLVERS`.
        order: of UniPC, 1 to 3.
        guidance: classifier-free guidance scale; 1 is no guidance.
        guidance_interval, guidance_rescale: as in `guided`.
        expert_boundary: the time below which the low-noise expert is used, for models with two experts; above 1 it is
            used alone.
        low_noise_guidance: the guidance scale of the low-noise expert; `guidance` if None.
    """

    steps: Annotated[int, Range(1, 100_000)] = 30
    shift: Positive = 1.0
    base_tokens: Size | None = None
    t_min: Share = 0.0
    t_max: Share = 1.0
    closed: bool = False
    quantize_timesteps: bool = False
    solver: str = "unipc"
    order: Annotated[int, Range(1, 3)] = 2
    guidance: Guidance = 1.0
    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    guidance_rescale: Share = 0.0
    expert_boundary: Annotated[float, Range(0, 2)] = 0.0
    low_noise_guidance: Guidance | None = None

    def __post_init__(self):
        check_ranges(self)
        make_solver(self.solver, self.order)
        self._schedule(self.shift)

    def times(self, num_tokens: int | None = None) -> Float[np.ndarray, "points"]:
        """Return the times that the solver visits; `num_tokens` is needed if `base_tokens` is set."""
        return self._schedule(resolution_shift(self.shift, self.base_tokens, num_tokens))

    def model_timesteps(self, times: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"] | None:
        """Return the times that the model is called with; None if they are those of the solver."""
        return quantize_timesteps(times) if self.quantize_timesteps else None

    def _schedule(self, shift: float) -> Float[np.ndarray, "points"]:
        return schedule(self.steps, shift, t_min=self.t_min, t_max=self.t_max, closed=self.closed)

    def override(
        self, *, steps: int | None = None, solver: str | None = None, guidance: int | float | None = None
    ) -> "SamplerConfig":
        """Return the sampler with the options that are given."""
        return replace(
            self,
            steps=self.steps if steps is None else steps,
            solver=self.solver if solver is None else solver,
            guidance=self.guidance if guidance is None else float(guidance),
        )


def make_solver(name: str, order: int = 2) -> Solver:
    """Return the solver of that name; ValueError if there is none. `order` is that of UniPC alone."""
    match name:
        case "unipc":
            return unipc(order)
        case "unipc_bh1":
            return unipc(order, "bh1")
        case "dpmpp":
            return dpmpp()
        case "euler":
            return euler()
        case "heun":
            return heun()
    raise ValueError(f"solver {name!r} is unknown: use one of {SOLVERS}")


def sample_conditioned(
    cfg: SamplerConfig,
    velocity_fn: ConditionalVelocityFn,
    noise: Float[Array, "B *dims"],
    cond: Condition,
    uncond: Condition,
    *,
    num_tokens: int | None = None,
    low_noise_expert: ConditionalVelocityFn | None = None,
) -> Float[Array, "B *dims"]:
    """Integrate from noise to data with conditioning.

    Args:
        velocity_fn: `velocity(x, t, condition)`.
        cond, uncond: pytrees of equal structure with the batch first.
        num_tokens: tokens of a clip, needed if `cfg.base_tokens` is set.
        low_noise_expert: the velocity at times below `cfg.expert_boundary`; `velocity_fn` if None.
    """
    guide = functools.partial(
        guided, cond=cond, uncond=uncond, interval=cfg.guidance_interval, rescale=cfg.guidance_rescale
    )
    velocity = high_noise = guide(velocity_fn, scale=cfg.guidance)
    if low_noise_expert is not None:
        scale = cfg.guidance if cfg.low_noise_guidance is None else cfg.low_noise_guidance
        low_noise = guide(low_noise_expert, scale=scale)

        def velocity(x, t_B):
            return jax.lax.cond(t_B[0] >= cfg.expert_boundary, high_noise, low_noise, x, t_B)

    times = cfg.times(num_tokens)
    return integrate(make_solver(cfg.solver, cfg.order), velocity, noise, times, cfg.model_timesteps(times))


def quantize_timesteps(times: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """Round times down to multiples of 0.001; 1 becomes 0.999, the last of 1000 training steps."""
    return np.floor(1000 * np.minimum(times, 1 - 1e-6)) / 1000
