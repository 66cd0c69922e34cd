"""The programs of training and inference, ready to compile: their arguments are shapes with shardings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, DTypeLike, Float, Key, PyTree

from videodit.config.run import DiTRun, Run, VAERun
from videodit.inference.generate import decode_latents, generate
from videodit.models.condition_embedder import find_embedders
from videodit.models.conditioning import Conditioning
from videodit.models.flops import dit_cost
from videodit.models.text import TextEncoder
from videodit.models.text_to_video import TextToVideo
from videodit.models.vae import VAE, VAEConfig
from videodit.nn.embed import token_grid
from videodit.nn.stack import Remat
from videodit.nn.state import abstract_arrays, abstract_module, matrix_axes_of, shardings_of
from videodit.parallel.mesh import parse_mesh
from videodit.shapes import RandomKey, Video
from videodit.train.batch import Batch
from videodit.train.loop import batch_sharding
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state
from videodit.train.step import make_train_step
from videodit.train.task import TASKS, Task

ProgramName = Literal["train", "sample", "denoise", "decode", "vae"]
Shapes = PyTree[jax.ShapeDtypeStruct]
"""Shapes and types of arrays with their shardings."""


@dataclass(frozen=True)
class Program:
    """A jitted function and its arguments.

    Attributes:
        arguments: their shapes.
        state: those of the arguments that are `parameters`, `optimiser` and `ema`.
        gradients: the shapes of gradients, sharded like their parameters; None if it computes none.
        task: the task that it is of.
        clips: the number of clips that one run reads or generates.
        model_flops: FLOPs of one run without recomputation; None if unknown.
    """

    fn: jax.stages.Wrapped
    arguments: tuple[Shapes, ...]
    state: Mapping[str, Shapes]
    gradients: Shapes
    task: Task
    clips: int
    model_flops: float | None

    @property
    def tokens(self) -> int:
        """The number of tokens, or of an autoencoder's latent positions, of one run."""
        return self.clips * self.task.tokens_per_clip

    def compile(self, mesh: Mesh) -> jax.stages.Compiled:
        """Compile for the devices of a mesh."""
        with jax.set_mesh(mesh):
            return self.fn.lower(*self.arguments).compile()


def override_run(run: Run, *, mesh: str | None = None, batch_size: int | None = None, remat: str | None = None) -> Run:
    """Return a run with another mesh, batch size or remat policy; None is as configured.

    Args:
        mesh: as `parse_mesh` reads it.

    Raises:
        ValueError: for an unknown mesh axis or remat policy, and for the remat policy of an autoencoder.
    """
    if mesh is not None:
        parsed = parse_mesh(mesh)
        run = replace(run, mesh=parsed if "ulysses" in mesh else replace(parsed, ulysses=run.mesh.ulysses))
    if batch_size is not None:
        run = replace(run, data=replace(run.data, batch_size=batch_size))
    if remat is not None:
        if not isinstance(run, DiTRun):
            raise ValueError("remat is for transformers: an autoencoder's configuration has no such choice")
        if remat not in get_args(Remat):
            raise ValueError(f"remat is one of {', '.join(get_args(Remat))}, not '{remat}'")
        run = replace(run, model=replace(run.model, remat=remat))
    return run


def build_program(name: ProgramName, run: Run, mesh: Mesh, vae: VAEConfig | None = None) -> Program:
    """Return the training step (`train`), sampler (`sample`) or autoencoder reconstruction (`vae`) of a run.

    `sample` is the single program of sampling during training; `videodit sample` runs two programs: from encoded
    captions to latents (`denoise`), and from latents to pixels (`decode`).

    Args:
        vae: the autoencoder of a transformer's latents; if None, Wan's shape with the transformer's channels.

    Raises:
        ValueError: for the sampler of an autoencoder, and if sizes do not divide over the mesh.
    """
    if name == "train":
        return build_train_program(run, mesh, vae)
    if name != "vae" and not isinstance(run, DiTRun):
        raise ValueError("an autoencoder's configuration has no sampler: plan its `vae`")
    match name:
        case "denoise":
            return _denoise_program(run, mesh, vae)
        case "decode":
            return _decode_program(run, mesh, vae)
        case "vae" if isinstance(run, DiTRun):
            run = VAERun(steps=run.steps, data=run.data, model=vae or default_vae(run), mesh=run.mesh)
    return _sample_program(run, mesh, vae)


def build_train_program(run: Run, mesh: Mesh, vae: VAEConfig | None = None) -> Program:
    """Return the training step that `train.loop` compiles on a mesh.

    A transformer's batches hold latents, as `videodit data encode` writes them.

    Args:
        vae: as in `build_program`.
    """
    task = _abstract_task(run, vae)
    schedule, model = learning_rate(run.optim, run.steps), abstract_module(task.init)
    optimizer = make_optimizer(run.optim, schedule, matrix_axes_of(model))
    graphdef, state = abstract_state(model, optimizer, mesh, stored=run.optim.params, average=run.ema > 0)
    step = make_train_step(run, task, graphdef, optimizer, schedule, shardings_of(state))
    clips, flops = run.data.batch_size, task.flops_per_clip
    return Program(
        fn=step,
        arguments=(state, abstract_batch(run, task, batch_sharding(run, mesh)), task.frozen_shardings(mesh)),
        state={"parameters": state.params, "optimiser": state.opt_state, "ema": state.ema},
        gradients=state.params,
        task=task,
        clips=clips,
        model_flops=None if flops is None else float(clips * flops),
    )


def _sample_program(run: Run, mesh: Mesh, vae: VAEConfig | None) -> Program:
    """Return the sampler of training: clips for a batch's captions, or an autoencoder's reconstructions."""
    task = _abstract_task(run, vae)
    graphdef, params, buffers = abstract_arrays(abstract_module(task.init), mesh)

    def fn(params: PyTree, buffers: PyTree, frozen: PyTree, batch: Batch, key: RandomKey) -> Video:
        return task.sample(nnx.merge(graphdef, params, buffers), frozen, batch, key)

    batch = abstract_batch(run, task, batch_sharding(run, mesh))
    arguments = params, buffers, task.frozen_shardings(mesh), batch, jax.eval_shape(lambda: jax.random.key(0))
    return _inference_program(jax.jit(fn), arguments, run, task)


def _denoise_program(run: DiTRun, mesh: Mesh, cfg: VAEConfig | None) -> Program:
    """Return the program of `videodit sample` that generates latents, with the batch size of training."""
    task, clips = _abstract_task(run, cfg), run.data.batch_size
    graphdef, params, buffers = abstract_arrays(
        abstract_module(lambda rngs: TextToVideo(run.model, None, prediction=run.objective.prediction, rngs=rngs)), mesh
    )
    vae, replicated = _abstract_vae(run, cfg), NamedSharding(mesh, P())

    def array(dtype: DTypeLike, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((clips, *shape), dtype, sharding=replicated)

    def denoise(
        params: PyTree, buffers: PyTree, keys: Key[Array, "B"], cond: Conditioning, uncond: Conditioning
    ) -> Video:
        model = nnx.merge(graphdef, params, buffers)
        return generate(model, vae, run.sampler, keys, cond, uncond, (run.data.frames, run.data.height, run.data.width))

    length = run.data.text_length
    text = array(run.text.dtype, length, run.model.text_width)
    inputs = {name: array(each.dtype, *each.shape) for name, each in find_embedders(run.model.conditions).items()}
    conditioning = Conditioning(text, array(jnp.bool_, length), array(jnp.float32), inputs)
    keys = jax.ShapeDtypeStruct((clips,), jax.random.key(0).dtype, sharding=replicated)
    calls = run.sampler.steps * (1 if run.sampler.guidance == 1 else 2)
    grid = token_grid(task.latent_shape[:3], run.model.patch)
    flops = clips * calls * dit_cost(run.model, task.tokens_per_clip, length, grid=grid).forward_flops
    arguments = params, buffers, keys, conditioning, conditioning
    return _inference_program(jax.jit(denoise), arguments, run, task, float(flops))


def _decode_program(run: DiTRun, mesh: Mesh, cfg: VAEConfig | None) -> Program:
    """Return the program of `videodit sample` that decodes latents."""
    task, clips = _abstract_task(run, cfg), run.data.batch_size
    graphdef, params, buffers = abstract_arrays(_abstract_vae(run, cfg), mesh)
    latents = jax.ShapeDtypeStruct((clips, *task.latent_shape), jnp.float32, sharding=NamedSharding(mesh, P()))

    def render(params: PyTree, buffers: PyTree, latents: Float[Array, "B t y x C"]) -> Float[Array, "B T Y X 3"]:
        return decode_latents(nnx.merge(graphdef, params, buffers), latents)

    # The encoder's parameters are in memory too.
    return _inference_program(jax.jit(render, keep_unused=True), (params, buffers, latents), run, task)


def _inference_program(
    fn: jax.stages.Wrapped, arguments: tuple[Shapes, ...], run: Run, task: Task, model_flops: float | None = None
) -> Program:
    """Return a program whose first argument is the parameters, and which computes no gradients."""
    return Program(
        fn=fn,
        arguments=arguments,
        state={"parameters": arguments[0]},
        gradients=None,
        task=task,
        clips=run.data.batch_size,
        model_flops=model_flops,
    )


def default_vae(run: DiTRun) -> VAEConfig:
    """Return an autoencoder with Wan's shape and the latent channels of a transformer."""
    return VAEConfig(latent_channels=run.model.out_channels or run.model.in_channels)


def _abstract_vae(run: DiTRun, cfg: VAEConfig | None) -> VAE:
    return abstract_module(lambda rngs: VAE(cfg or default_vae(run), rngs=rngs))


def _abstract_task(run: Run, vae: VAEConfig | None) -> Task:
    """Return the task of a run with shapes in place of the weights of its frozen networks."""
    task = TASKS.get(run.kind)
    models: dict[str, nnx.Module] = {}
    for name in task.required_models(run):
        if name == "vae":
            models[name] = _abstract_vae(run, vae)
        else:
            models[name] = abstract_module(lambda rngs: TextEncoder(run.text, rngs=rngs))
    return task(run, models)


def abstract_batch(run: Run, task: Task, sharding: Sharding) -> Batch:
    """Return the shapes of a batch: pixels for an autoencoder, latents or packed tokens for a transformer."""
    data, packing = run.data, run.data.packing

    def array(dtype: DTypeLike, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((data.batch_size, *shape), dtype, sharding=sharding)

    latent = array(jnp.float16, *task.latent_shape) if isinstance(run, DiTRun) else None
    clips = (packing.clips,) if data.packed else ()
    if data.packed:
        latent = array(jnp.float16, packing.length, math.prod(run.model.patch) * task.latent_shape[-1])
    return Batch(
        video=None if latent is not None else array(jnp.uint8, data.frames, data.height, data.width, 3),
        latent_mean=latent,
        latent_logvar=latent,
        text_ids=array(jnp.int32, *clips, data.text_length),
        text_mask=array(jnp.bool_, *clips, data.text_length),
        fps=array(jnp.float32, *clips),
        valid=array(jnp.bool_, *clips),
        segments=array(jnp.int32, packing.length) if data.packed else None,
        positions=array(jnp.int32, packing.length, 3) if data.packed else None,
        conditions={
            name: array(embedder.dtype, *embedder.shape)
            for name, embedder in find_embedders(getattr(run.model, "conditions", ())).items()
        },
    )


def bytes_per_device(shapes: Shapes) -> int:
    """Return the bytes of the shards of arrays on one device."""
    leaves = jax.tree.leaves(shapes)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
