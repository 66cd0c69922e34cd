"""The trainer's own programs, to be compiled: all of their arguments as shapes, laid out on a mesh."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from videodit.config.run import DiTRun, Run, VAERun
from videodit.inference.generate import decode_latents, generate
from videodit.models.conditioning import Conditioning
from videodit.models.flops import dit_cost
from videodit.models.text import TextEncoder
from videodit.models.text_to_video import TextToVideo
from videodit.models.vae import VAE, VAEConfig
from videodit.nn.state import abstract_arrays, abstract_module, matrix_axes_of, shardings_of
from videodit.train.batch import Batch
from videodit.train.loop import batch_sharding
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state
from videodit.train.step import make_train_step
from videodit.train.task import TASKS, Task

What = Literal["train", "sample", "denoise", "decode", "vae"]


@dataclass(frozen=True)
class Program:
    """A function to compile, its arguments as shapes with their places, and what one run of it is.

    Attributes:
        parts: of the arguments, what is called `parameters`, `optimiser` and `ema`.
        gradients: the shapes of gradients, which lie as their parameters do; None where there are none.
        task, clips: what it works on, and how many clips a run takes or makes.
        model_flops: of a run, without what is computed again; None if not known.
    """

    fn: Callable[..., Any]
    arguments: tuple[Any, ...]
    parts: Mapping[str, Any]
    gradients: Any
    task: Task
    clips: int
    model_flops: float | None

    @property
    def tokens(self) -> int:
        """Latent positions or tokens of a run."""
        return self.clips * self.task.tokens_per_clip

    def compile(self, mesh: Mesh) -> jax.stages.Compiled:
        """The executable, for the devices of the mesh."""
        with jax.set_mesh(mesh):
            return self.fn.lower(*self.arguments).compile()


def program(what: What, run: Run, mesh: Mesh, vae: VAEConfig | None = None) -> Program:
    """A run's update (`train`), its sampler (`sample`), or its autoencoder there and back (`vae`).

    What the trainer samples in one program, `videodit sample` does in several: from encoded captions to latents
    (`denoise`), then to pixels (`decode`).

    Args:
        vae: of a transformer's latents; Wan's shape with as many channels as the transformer has if None.

    Raises:
        ValueError: for the sampler of an autoencoder, and where sizes do not divide over the mesh.
    """
    if what == "train":
        return train_program(run, mesh, vae)
    if what != "vae" and not isinstance(run, DiTRun):
        raise ValueError("there is nothing to sample from in an autoencoder's configuration: plan its `vae`")
    match what:
        case "denoise":
            return _denoise_program(run, mesh, vae)
        case "decode":
            return _decode_program(run, mesh, vae)
        case "vae" if isinstance(run, DiTRun):
            run = VAERun(steps=run.steps, data=run.data, model=vae or default_vae(run), mesh=run.mesh)
    return _sample_program(run, mesh, vae)


def train_program(run: Run, mesh: Mesh, vae: VAEConfig | None = None) -> Program:
    """One update, as `train.loop` would compile it on that mesh; `vae` as in `program`.

    A transformer's batches hold latents (`videodit data encode`).
    """
    task = _task(run, vae)
    schedule, model = learning_rate(run.optim, run.steps), abstract_module(task.init)
    optimizer = make_optimizer(run.optim, schedule, matrix_axes_of(model))
    graphdef, state = abstract_state(model, optimizer, mesh, stored=run.optim.params, average=run.ema > 0)
    step = make_train_step(run, task, graphdef, optimizer, schedule, shardings_of(state))
    clips, flops = run.data.batch_size, task.flops_per_clip
    return Program(
        step,
        (state, abstract_batch(run, task, batch_sharding(run, mesh)), task.frozen_shardings(mesh)),
        {"parameters": state.params, "optimiser": state.opt_state, "ema": state.ema},
        state.params,
        task,
        clips,
        None if flops is None else clips * flops,
    )


def _sample_program(run: Run, mesh: Mesh, vae: VAEConfig | None) -> Program:
    """Clips for a batch's captions, or the autoencoder's reconstruction of its clips, as the trainer draws them."""
    task = _task(run, vae)
    graphdef, params, buffers = abstract_arrays(abstract_module(task.init), mesh)

    def fn(params: Any, buffers: Any, frozen: Any, batch: Batch, key: Any) -> Any:
        return task.sample(nnx.merge(graphdef, params, buffers), frozen, batch, key)

    batch = abstract_batch(run, task, batch_sharding(run, mesh))
    arguments = params, buffers, task.frozen_shardings(mesh), batch, jax.eval_shape(lambda: jax.random.key(0))
    return Program(jax.jit(fn), arguments, {"parameters": params}, None, task, run.data.batch_size, None)


def _denoise_program(run: DiTRun, mesh: Mesh, cfg: VAEConfig | None) -> Program:
    """Latents for as many captions as a batch has, as `videodit sample` makes them."""
    task, clips = _task(run, cfg), run.data.batch_size
    graphdef, params, buffers = abstract_arrays(
        abstract_module(lambda rngs: TextToVideo(run.model, None, rngs=rngs)), mesh
    )
    vae, everywhere = _vae(run, cfg), NamedSharding(mesh, P())

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((clips, *shape), dtype, sharding=everywhere)

    def denoise(params: Any, buffers: Any, keys: Any, cond: Conditioning, uncond: Conditioning) -> Any:
        model = nnx.merge(graphdef, params, buffers)
        return generate(model, vae, run.sampler, keys, cond, uncond, (run.data.frames, run.data.height, run.data.width))

    length = run.data.text_length
    text = array(run.text.dtype, length, run.model.text_width)
    conditioning = Conditioning(text, array(jnp.bool_, length), array(jnp.float32))
    keys = array(jax.random.key(0).dtype)
    calls = run.sampler.steps * (1 if run.sampler.guidance == 1 else 2)
    flops = clips * calls * dit_cost(run.model, task.tokens_per_clip, length).forward_flops
    arguments = params, buffers, keys, conditioning, conditioning
    return Program(jax.jit(denoise), arguments, {"parameters": params}, None, task, clips, float(flops))


def _decode_program(run: DiTRun, mesh: Mesh, cfg: VAEConfig | None) -> Program:
    """Clips of latents, likewise."""
    task, clips = _task(run, cfg), run.data.batch_size
    graphdef, params, buffers = abstract_arrays(_vae(run, cfg), mesh)
    latents = jax.ShapeDtypeStruct((clips, *task.latent_shape), jnp.float32, sharding=NamedSharding(mesh, P()))

    def render(params: Any, buffers: Any, latents: Any) -> Any:
        return decode_latents(nnx.merge(graphdef, params, buffers), latents)

    # The encoder's parameters lie there too.
    return Program(
        jax.jit(render, keep_unused=True), (params, buffers, latents), {"parameters": params}, None, task, clips, None
    )


def default_vae(run: DiTRun) -> VAEConfig:
    """An autoencoder that fits a transformer: Wan's shape."""
    return VAEConfig(latent_channels=run.model.out_channels or run.model.in_channels)


def _vae(run: DiTRun, cfg: VAEConfig | None) -> VAE:
    """The autoencoder of a transformer's latents, as shapes."""
    return abstract_module(lambda rngs: VAE(cfg or default_vae(run), rngs=rngs))


def _task(run: Run, vae: VAEConfig | None) -> Task:
    """A task whose autoencoder and text encoder, if it needs such, are of shapes alone."""
    task = TASKS.get(run.kind)
    models: dict[str, nnx.Module] = {}
    for name in task.required_models(run):
        models[name] = (
            _vae(run, vae) if name == "vae" else abstract_module(lambda rngs: TextEncoder(run.text, rngs=rngs))
        )
    return task(run, models)


def abstract_batch(run: Run, task: Task, rows: Sharding) -> Batch:
    """The shapes of a batch: pixels for an autoencoder, latents or rows of their tokens for a transformer."""
    data, packing = run.data, run.data.packing

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((data.batch_size, *shape), dtype, sharding=rows)

    latent = array(jnp.float16, *task.latent_shape) if isinstance(run, DiTRun) else None
    clips = (packing.clips,) if data.packed else ()
    packed = {}
    if data.packed:
        latent = array(jnp.float16, packing.length, math.prod(run.model.patch) * task.latent_shape[-1])
        packed["segments"] = array(jnp.int32, packing.length)
        packed["positions"] = array(jnp.int32, packing.length, 3)
    return Batch(
        video=None if latent is not None else array(jnp.uint8, data.frames, data.height, data.width, 3),
        latent_mean=latent,
        latent_logvar=latent,
        text_ids=array(jnp.int32, *clips, data.text_length),
        text_mask=array(jnp.bool_, *clips, data.text_length),
        fps=array(jnp.float32, *clips),
        valid=array(jnp.bool_, *clips),
        **packed,
    )


def bytes_per_device(tree: Any) -> int:
    """Of the arrays of a tree of shapes with their places, what one device holds."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
