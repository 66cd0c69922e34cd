"""Solvers of dx/dt = v(x, t) from noise (t = 1) to data (t = 0), each run by one `lax.scan`.

A solver is three pure functions: `table(times)` returns rows of constants, one per step, in float64 on the host;
`init(x)` returns the carry, whose first entry is the sample; `step(velocity, carry, row)` returns the next carry.
Order, step size and the ends of the path are in the rows, so that the step has no branches.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from videodit.diffusion.path import VelocityFn, alpha, data_from_velocity, half_log_snr, sigma

Times = Float[np.ndarray, "points"]
Rows = PyTree[Float[Array, "..."] | Float[np.ndarray, "..."]]
Carry = PyTree[Float[Array, "..."]]

# Half log-SNR is infinite at t = 0 and t = 1: times are clipped by the distance of 1 - 1e-6 from 1 in float32, like in
# diffusers' UniPC. The value matters for few steps.
_T_EDGE = 1.0 - float(np.float32(1 - 1e-6))


class Solver(NamedTuple):
    """A solver; see the docstring of this module."""

    table: Callable[[Times], Rows]
    init: Callable[[Array], Carry]
    step: Callable[[VelocityFn, Carry, Rows], Carry]


def integrate(
    solver: Solver,
    velocity_fn: VelocityFn,
    x: Float[Array, "B *dims"],
    times: Times,
    model_timesteps: Times | None = None,
) -> Float[Array, "B *dims"]:
    """Integrate `x` from `times[0]` to `times[-1]`; the state is float32 (float64 if `x` is).

    Args:
        times: decreasing, in [0, 1], one more than there are steps; constants of the program.
        model_timesteps: passed to the model in place of `times`, for models trained at rounded times.

    Raises:
        ValueError: if the times do not decrease.
    """
    times = np.asarray(times, np.float64)
    if len(times) < 2 or np.any(np.diff(times) >= 0) or times[0] > 1 or times[-1] < 0:
        raise ValueError(f"solver times must be two or more numbers falling within [0, 1], not {times}")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    rows = jax.tree.map(lambda row: jnp.asarray(row, x.dtype), solver.table(times))

    visited = jnp.asarray(times, x.dtype)

    def velocity(x, t):
        if model_timesteps is not None:
            t = jnp.asarray(model_timesteps, x.dtype)[jnp.argmin(jnp.abs(visited - t))]
        return velocity_fn(x, jnp.full(len(x), t)).astype(x.dtype)

    carry, _ = jax.lax.scan(lambda carry, row: (solver.step(velocity, carry, row), None), solver.init(x), rows)
    return carry[0]


def euler() -> Solver:
    """Return the Euler solver: first order, one evaluation per step. Exact for straight paths."""

    def step(velocity, carry, row):
        (x,), (t, t_next) = carry, row
        return (x + (t_next - t) * velocity(x, t),)

    return Solver(lambda times: (times[:-1], times[1:]), lambda x: (x,), step)


def heun() -> Solver:
    """Return the Heun solver: second order, two evaluations per step, at both ends of an Euler step."""

    def step(velocity, carry, row):
        (x,), (t, t_next) = carry, row
        dt = t_next - t
        v = velocity(x, t)
        v_next = velocity(x + dt * v, t_next)
        return (x + dt * (v + v_next) / 2,)

    return Solver(lambda times: (times[:-1], times[1:]), lambda x: (x,), step)


Variant = Literal["bh1", "bh2"]


def unipc(order: int = 2, variant: Variant = "bh2") -> Solver:
    """Return UniPC: order 1 to 3, one evaluation per step (Zhao et al. 2023, "UniPC", data prediction).

    The evaluation of step n at its predicted sample first corrects that sample (UniC), then predicts the next one
    (UniP). Both are linear in samples and data predictions, so a step is two weighted sums. Corrected samples have one
    order more than predicted ones (ibid., theorem 3.1 and corollary 3.2). The order rises from 1 over the first steps,
    and falls back to 1 at the end of a grid that ends at t = 0, where the half log-SNR is infinite.

    Args:
        variant: B(h) is h ("bh1") or e^h - 1 ("bh2").

    Raises:
        ValueError: for another order.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"there is no UniPC of order {order}: orders are 1, 2 and 3")

    def init(x):
        return x, x, (jnp.zeros_like(x),) * order  # predicted sample, last corrected sample, past data predictions

    def step(velocity, carry, row):
        (x, x_last, past), (t, correct, predict) = carry, row
        data = data_from_velocity(x, velocity(x, t), t)
        x = _weighted(correct, (x_last, data, *past))
        past = (data, *past[:-1])
        return _weighted(predict, (x, *past)), x, past

    return Solver(lambda times: _unipc_table(times, order, variant), init, step)


def dpmpp() -> Solver:
    """Return DPM-Solver++ (2M): one evaluation per step (Lu et al. 2022, "DPM-Solver++", algorithm 2).

    It is UniPC's second-order predictor with B(h) = e^h - 1, without the corrector.
    """
    solver = unipc(2)

    def table(times):
        visited, correct, predict = _unipc_table(times, 2, "bh2")
        return visited, np.eye(1, correct.shape[1]).repeat(len(correct), 0), predict

    def step(velocity, carry, row):
        (x, _, past), (t, *weights) = carry, row
        return solver.step(velocity, (x, x, past), (t, *weights))

    return Solver(table, solver.init, step)


def _weighted(weights: Float[Array, "n"], values: tuple[Float[Array, "*dims"], ...]) -> Float[Array, "*dims"]:
    return sum(w * value for w, value in zip(weights, values, strict=True))


def _unipc_table(times: Times, order: int, variant: Variant) -> Rows:
    """Return rows (t, weights of the corrector at t, weights of the predictor from t), padded with zeros."""
    steps = len(times) - 1
    remaining = np.arange(steps, 0, -1) if times[-1] == 0 else np.full(steps, order)
    orders = np.minimum(np.minimum(np.arange(steps) + 1, remaining), order).tolist()
    correct, predict = np.zeros((steps, order + 2)), np.zeros((steps, order + 1))
    correct[0, 0] = 1  # the first sample is not corrected
    for n, p in enumerate(orders):
        x_weight, data_weights = _unipc_step(times, n, p, variant, corrector=False)
        predict[n, : p + 1] = [x_weight, *data_weights]
        if n + 1 < steps:
            x_weight, data_weights = _unipc_step(times, n, p, variant, corrector=True)
            correct[n + 1, : p + 2] = [x_weight, *data_weights]
    return times[:-1], correct, predict


def _unipc_step(times: Times, n: int, order: int, variant: Variant, *, corrector: bool) -> tuple[float, list[float]]:
    """Return the weights of a step from times[n]: of the sample, and of the data predictions, newest first.

    With m_j the data prediction at times[j], D_j = m_j - m_n, r_j = (lambda_j - lambda_n) / h, and a prime for the next
    time (the data-prediction form of Zhao et al. 2023, where z = -h):

        x' = (sigma' / sigma) x - alpha' (e^z - 1) m_n - alpha' B(z) sum_j rho_j D_j / r_j,    B(z) = z or e^z - 1

    The factor of m_n outside the sum is written as alpha' - sigma' alpha / sigma, which stays exact at t = 0 and 1.
    """
    points = np.arange(n - 1, n - order, -1)
    if corrector:
        points = np.append(points, n + 1)
    half_log_snrs = half_log_snr(np.clip(times, _T_EDGE, 1 - _T_EDGE))
    h = half_log_snrs[n + 1] - half_log_snrs[n]
    ratios = (half_log_snrs[points] - half_log_snrs[n]) / h

    alphas, sigmas = alpha(times), sigma(times)
    x_weight = sigmas[n + 1] / sigmas[n]
    b = -h if variant == "bh1" else np.expm1(-h)
    slopes = -alphas[n + 1] * b * _unipc_coefficients(ratios, h, b) / ratios
    now = alphas[n + 1] - x_weight * alphas[n] - slopes.sum()
    older, newer = slopes[: order - 1], slopes[order - 1 :]
    return x_weight, [*newer, now, *older]


def _unipc_coefficients(ratios: Float[np.ndarray, "k"], h: float, scale: float) -> Float[np.ndarray, "k"]:
    """Return the rho that match the Taylor series of the data prediction at k points.

    They solve R(r) rho = b(h), R_ij = r_j^(i - 1). For a single point, 1/2 preserves the order for any h, and is the
    paper's choice.

    Args:
        scale: B(-h), which divides b.
    """
    if len(ratios) < 2:
        return np.full(len(ratios), 0.5)
    phi, b = np.expm1(-h) / -h - 1, []
    for k in range(1, len(ratios) + 1):
        b.append(phi * math.factorial(k) / scale)
        phi = phi / -h - 1 / math.factorial(k + 1)
    return np.linalg.solve(np.vander(ratios, increasing=True).T, np.array(b))
