"""The optimiser: AdamW, Muon or Adafactor, its learning-rate schedule, and the moving average of the weights."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax.contrib import MuonDimensionNumbers, muon

from videodit.train.precision import Stored, stored_in


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its schedule, and the size of a micro-batch.

    kind: "adamw" (Loshchilov and Hutter 2019); or "muon" (Jordan et al. 2024) for the matrices of linear maps and
        convolutions, whose momentum it makes orthogonal, and AdamW for all else; or "adafactor" (Shazeer and Stern
        2018), which keeps a row and a column of second moments for a matrix and no first ones.
    lr: peak learning rate.
    schedule: "cosine" falls from the peak over the whole run; "wsd" (warm-up, stable, decay: Hu et al. 2024, MiniCPM)
        holds the peak and falls linearly in the last `decay` steps; "constant" holds it.
    warmup: steps of linear rise from zero.
    decay: steps of the fall of "wsd".
    final: the last learning rate, as a part of the peak.
    b1, b2, eps: Adam's moments.
    muon_rms: root mean square of Muon's update at a learning rate of 1. 0.2 is near Adam's, so that one learning rate
        serves both (Liu et al. 2025, arXiv:2502.16982).
    weight_decay: times the learning rate; kernels only (no biases, norms, embedding or modulation tables).
    clip: largest global norm of a gradient; 0 never clips.
    params, moments: what parameters and moments are stored in; bfloat16 parameters are rounded at random.
    micro_batches: parts that a batch is cut into, one after another, to save memory; the result is that of the batch.
    """

    kind: Literal["adamw", "muon", "adafactor"] = "adamw"
    lr: float = 1e-4
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: int = 0
    decay: int = 0
    final: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    muon_rms: float = 0.2
    weight_decay: float = 0.01
    clip: float = 1.0
    params: Stored = "float32"
    moments: Stored = "float32"
    micro_batches: int = 1

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}: it must be above 0")
        if min(self.warmup, self.decay) < 0:
            raise ValueError(f"warmup is {self.warmup} and decay is {self.decay}: both count steps from 0 up")
        if self.micro_batches < 1:
            raise ValueError(f"micro_batches is {self.micro_batches}: it must be at least 1")
        if self.moments == "bfloat16" and self.b2 > 0.99:
            raise ValueError(f"b2 is {self.b2}: moments in bfloat16 stand still above 0.99")
        if self.clip < 0:
            raise ValueError(f"clip is {self.clip}: it must be above 0, or 0 for no clipping")


def learning_rate(cfg: OptimConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of `steps` steps.

    Raises:
        ValueError: when warm-up and decay do not fit in the run.
    """
    fall = cfg.decay if cfg.schedule == "wsd" else 0
    if cfg.warmup + fall > steps:
        raise ValueError(f"{cfg.warmup} steps of warm-up and {fall} of decay do not fit in a run of {steps} steps")
    last = cfg.lr * cfg.final
    if cfg.schedule == "cosine":
        after = optax.cosine_decay_schedule(cfg.lr, max(steps - cfg.warmup, 1), cfg.final)
    elif cfg.schedule == "wsd":
        after = optax.linear_schedule(cfg.lr, last, max(fall, 1), transition_begin=steps - fall - cfg.warmup)
    else:
        after = optax.constant_schedule(cfg.lr)
    if not cfg.warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, cfg.lr, cfg.warmup), after], [cfg.warmup])


def make_optimizer(
    cfg: OptimConfig, schedule: optax.Schedule, matrices: PyTree | None = None
) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimiser; weight decay acts on kernels alone.

    Args:
        matrices: input and output axes of the parameters that Muon is for, None for the others (`matrix_axes`).
    """
    if cfg.kind == "muon":
        update = _muon(cfg, schedule, matrices)
    elif cfg.kind == "adafactor":
        # Updates are of size 1, as Adam's are, so that one learning rate serves both.
        update = _descend(cfg, schedule, optax.adafactor(multiply_by_parameter_scale=False))
    else:
        update = optax.adamw(schedule, b1=cfg.b1, b2=cfg.b2, eps=cfg.eps, weight_decay=cfg.weight_decay, mask=decayed)
    whole = optax.chain(optax.clip_by_global_norm(cfg.clip), update) if cfg.clip else update
    return whole if cfg.params == cfg.moments == "float32" else stored_in(whole, cfg.moments)


def _muon(cfg: OptimConfig, schedule: optax.Schedule, matrices: PyTree) -> optax.GradientTransformation:
    numbers = jax.tree.map(
        lambda axes: None if axes is None else MuonDimensionNumbers(*axes),
        matrices,
        is_leaf=lambda node: node is None or isinstance(node, tuple),
    )
    step = muon(
        1.0,
        muon_weight_dimension_numbers=numbers,
        consistent_rms=cfg.muon_rms,
        adam_b1=cfg.b1,
        adam_b2=cfg.b2,
        eps=cfg.eps,
    )
    return _descend(cfg, schedule, step)


def _descend(
    cfg: OptimConfig, schedule: optax.Schedule, step: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Weight decay and the learning rate on a step that points downhill already, hence the signs."""
    return optax.chain(
        step, optax.add_decayed_weights(-cfg.weight_decay, mask=decayed), optax.scale_by_schedule(schedule)
    )


def decayed(params: PyTree) -> PyTree[bool]:
    """Which parameters weight decay acts on: those called `kernel`, the matrices between one width and another."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)


def ema_decay(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """The decay of the average after `step` updates: min(decay, (1 + step) / (10 + step)), so the init is soon gone."""
    return jnp.minimum(jnp.float32(decay), (1.0 + step) / (10.0 + step))


def update_ema(ema: PyTree[Array], params: PyTree[Array], decay: Float[Array, ""]) -> PyTree[Array]:
    """The average moved towards the parameters: decay ema + (1 - decay) params, float32."""
    return jax.tree.map(lambda e, p: e * decay + p.astype(e.dtype) * (1 - decay), ema, params)
