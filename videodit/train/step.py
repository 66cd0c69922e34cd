"""One update: a pure function of the state and a batch."""

from collections.abc import Callable

import einops
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from videodit.config.run import Run
from videodit.train.batch import Batch
from videodit.train.optim import ema_decay, update_ema
from videodit.train.precision import apply_updates, cast
from videodit.train.state import TrainState
from videodit.train.task import Task

ROUNDING_STREAM = 2**32 - 1  # folded into a step's key for the randomness of rounding

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch, PyTree], tuple[TrainState, Metrics]]


def make_train_step(
    run: Run,
    task: Task,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    shardings: TrainState | None = None,
) -> TrainStep:
    """Return the compiled `(state, batch, frozen) -> (state, metrics)`; it consumes its state.

    The noise of a step comes from the run's seed and the step's number alone, and a batch cut into micro-batches gives
    the gradient of the whole. Metrics are float32 scalars on the devices: loss, what the task adds, grad_norm,
    param_norm, lr, finite (0 if the loss or the gradient is not), and how many clips the batch has.

    Args:
        shardings: of the new state; None leaves them to the compiler.
    """

    def step(state: TrainState, batch: Batch, frozen: PyTree) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(run.seed), state.step)
        draws = task.draw(batch, key)

        def sum_losses(params: PyTree, batch: Batch, draws: PyTree) -> tuple[Array, Metrics]:
            loss_B, aux = task.loss(nnx.merge(graphdef, params, state.buffers), frozen, batch, draws)
            sums = {name: jnp.sum(value_B, where=batch.valid) for name, value_B in {"loss": loss_B, **aux}.items()}
            return sums["loss"], sums

        sums, grads = _accumulate(sum_losses, state.params, batch, draws, run.optim.micro_batches)
        sums, grads = jax.tree.map(lambda x: x / jnp.maximum(batch.valid.sum(), 1), (sums, grads))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = apply_updates(state.params, updates, jax.random.fold_in(key, ROUNDING_STREAM))
        ema = None if state.ema is None else update_ema(state.ema, params, ema_decay(run.ema, state.step))
        grad_norm = optax.tree.norm(cast(grads, jnp.float32))
        metrics = sums | {
            "grad_norm": grad_norm,
            "param_norm": optax.tree.norm(cast(params, jnp.float32)),
            "lr": jnp.asarray(schedule(state.step), jnp.float32),
            "finite": jnp.isfinite(sums["loss"] + grad_norm).astype(jnp.float32),
            "clips": batch.valid.sum().astype(jnp.float32),
        }
        return TrainState(state.step + 1, params, ema, opt_state, state.buffers), metrics

    out = None if shardings is None else (shardings, None)
    return jax.jit(step, donate_argnums=0, out_shardings=out)


def _accumulate(
    sum_losses: Callable[..., tuple[Array, Metrics]], params: PyTree, batch: Batch, draws: PyTree, parts: int
) -> tuple[Metrics, PyTree]:
    """Return the sums of the metrics and of the gradient over a batch, one part of it at a time."""
    gradient = jax.grad(sum_losses, has_aux=True)
    if parts == 1:
        grads, sums = gradient(params, batch, draws)
        return sums, grads

    # Rows are assigned to the parts in turn, so that every device keeps its own: no row moves between devices.
    split = jax.tree.map(lambda x: einops.rearrange(x, "(b parts) ... -> parts b ...", parts=parts), (batch, draws))

    def add(total: PyTree, part: tuple[Batch, PyTree]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, *first))
    grads, sums = jax.lax.scan(add, zeros, split)[0]
    return sums, grads
