"""The trainer's own step as a program to be compiled: all of its arguments as shapes, laid out on a mesh."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from videodit.models.vae import VAE, VAEConfig
from videodit.train.config import DiTRun, Run
from videodit.train.feed import Batch
from videodit.train.loop import rows_sharding
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import TrainState, abstract_state, matrices, shapes_of, shardings_of
from videodit.train.step import make_train_step
from videodit.train.tasks import DiTTask, Task, VAETask


@dataclass(frozen=True)
class Program:
    """A compiled function's arguments as shapes with their places, and the task that it is of."""

    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    task: Task

    @property
    def state(self) -> TrainState:
        return self.arguments[0]

    def compile(self, mesh: Mesh) -> jax.stages.Compiled:
        with jax.set_mesh(mesh):
            return self.fn.lower(*self.arguments).compile()


def train_program(run: Run, mesh: Mesh, vae: VAEConfig | None = None) -> Program:
    """One update of a run, as `train.loop` would compile it on that mesh.

    A transformer's batches hold latents (`videodit data encode`).

    Args:
        vae: of a transformer's latents; Wan's shape with as many channels as the transformer has if None.
    """
    task = DiTTask(run, abstract_vae(run, vae)) if isinstance(run, DiTRun) else VAETask(run)
    schedule, model = learning_rate(run.optim, run.steps), shapes_of(task.init)
    optimizer = make_optimizer(run.optim, schedule, matrices(model))
    graphdef, state = abstract_state(model, optimizer, mesh, stored=run.optim.params, average=run.ema > 0)
    step = make_train_step(run, task, graphdef, optimizer, schedule, shardings_of(state))
    whole = NamedSharding(mesh, PartitionSpec())
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), task.frozen())
    return Program(step, (state, abstract_batch(run, task, rows_sharding(run, mesh)), frozen), task)


def abstract_vae(run: DiTRun, cfg: VAEConfig | None = None) -> VAE:
    """Shapes alone of an autoencoder that fits the run."""
    cfg = cfg or VAEConfig(latent_channels=run.model.in_channels)
    return nnx.eval_shape(lambda: VAE(cfg, rngs=nnx.Rngs(0)))


def abstract_batch(run: Run, task: Task, rows: Sharding) -> Batch:
    """The shapes of a batch: pixels for an autoencoder, latents for a transformer."""
    data = run.data

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((data.batch_size, *shape), dtype, sharding=rows)

    latent = array(jnp.float32, *task.latent_shape) if isinstance(run, DiTRun) else None
    return Batch(
        video=None if latent is not None else array(jnp.float32, data.frames, data.height, data.width, 3),
        latent_mean=latent,
        latent_logvar=latent,
        text_ids=array(jnp.int32, data.text_length),
        text_mask=array(jnp.bool_, data.text_length),
        fps=array(jnp.float32),
        real=array(jnp.bool_),
    )


def bytes_per_device(tree: Any) -> int:
    """Of the arrays of a tree of shapes with their places, what one device holds."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
