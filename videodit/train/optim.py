"""The optimizer: AdamW, Muon or Adafactor, its learning-rate schedule, and the moving average of the weights."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax.contrib import MuonDimensionNumbers, muon

from videodit.config.optim import OptimConfig
from videodit.train.precision import store_state_in


def learning_rate(cfg: OptimConfig, steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step, for a run of `steps` steps.

    Raises:
        ValueError: when warm-up and decay do not fit in the run.
    """
    decay = cfg.decay if cfg.schedule == "wsd" else 0
    cfg.check_steps(steps)
    last = cfg.lr * cfg.final
    if cfg.schedule == "cosine":
        after = optax.cosine_decay_schedule(cfg.lr, max(steps - cfg.warmup, 1), cfg.final)
    elif cfg.schedule == "wsd":
        after = optax.linear_schedule(cfg.lr, last, max(decay, 1), transition_begin=steps - decay - cfg.warmup)
    else:
        after = optax.constant_schedule(cfg.lr)
    if not cfg.warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, cfg.lr, cfg.warmup), after], [cfg.warmup])


def make_optimizer(
    cfg: OptimConfig, schedule: optax.Schedule, matrix_axes: PyTree | None = None
) -> optax.GradientTransformation:
    """Build the optimizer: clipping by global norm, then its update; weight decay acts on kernels alone.

    Args:
        matrix_axes: input and output axes of the parameters that Muon is for, None for the others.
    """
    if cfg.kind == "muon":
        update = _muon(cfg, schedule, matrix_axes)
    elif cfg.kind == "adafactor":
        # Updates are of size 1, as Adam's are, so that one learning rate serves both.
        update = _descend(cfg, schedule, optax.adafactor(multiply_by_parameter_scale=False))
    else:
        update = optax.adamw(
            schedule, b1=cfg.b1, b2=cfg.b2, eps=cfg.eps, weight_decay=cfg.weight_decay, mask=decay_mask
        )
    optimizer = optax.chain(optax.clip_by_global_norm(cfg.clip), update) if cfg.clip else update
    return optimizer if cfg.params == cfg.moments == "float32" else store_state_in(optimizer, cfg.moments)


def _muon(cfg: OptimConfig, schedule: optax.Schedule, matrix_axes: PyTree) -> optax.GradientTransformation:
    numbers = jax.tree.map(
        lambda axes: None if axes is None else MuonDimensionNumbers(*axes),
        matrix_axes,
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
    """Apply weight decay and the learning rate to a step that points downhill already, hence the signs."""
    return optax.chain(
        step, optax.add_decayed_weights(-cfg.weight_decay, mask=decay_mask), optax.scale_by_schedule(schedule)
    )


def decay_mask(params: PyTree) -> PyTree[bool]:
    """Return which parameters weight decay acts on: those called `kernel`, matrices from one width to another."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)


def ema_decay(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """Return the decay of the average after `step` updates: min(decay, (1 + step) / (10 + step)).

    So the initial weights are soon forgotten.
    """
    return jnp.minimum(jnp.float32(decay), (1.0 + step) / (10.0 + step))


def update_ema(ema: PyTree[Array], params: PyTree[Array], decay: Float[Array, ""]) -> PyTree[Array]:
    """Return the average moved towards the parameters: decay ema + (1 - decay) params, float32."""
    return jax.tree.map(lambda e, p: e * decay + p.astype(e.dtype) * (1 - decay), ema, params)
