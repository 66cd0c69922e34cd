"""Training a text-to-video transformer: flow matching on the normalized latents of a frozen autoencoder."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from videodit.checkpoint.restore import build_model
from videodit.config.run import DiTRun
from videodit.diffusion.objective import compute_loss
from videodit.diffusion.timesteps import sample_timesteps
from videodit.inference.generate import decode_latents, generate
from videodit.models.conditioning import Conditioning
from videodit.models.flops import adapted_train_flops, dit_cost, text_cost
from videodit.models.pixels import to_float
from videodit.models.text_to_video import TextToVideo, count_tokens, empty_captions
from videodit.models.vae import VAEConfig
from videodit.nn.embed import token_grid
from videodit.nn.state import abstract_module, split_model
from videodit.shapes import RandomKey, Video
from videodit.train.batch import Batch
from videodit.train.batch_layouts import layout_of
from videodit.train.task import TASKS, FrozenModels, PerClipValues

EVAL_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@TASKS.register("dit")
class TextToVideoTask:
    """Flow matching on the normalized latents of a frozen autoencoder, given text.

    Batches hold clips, which the step encodes, or the means and log-variances of their latents; one clip a row, or
    several packed (`batch_layouts`).

    Args:
        models: the autoencoder "vae", and the text encoder "text" of runs that train none along.
        empty_text: in place of "text" where batches hold embeddings: those of the empty caption, `text` [S, E] and
            `text_mask` [S].

    Raises:
        ValueError: when the channels of latents, or the sizes of clips, do not fit.
    """

    def __init__(
        self, run: DiTRun, models: Mapping[str, nnx.Module], empty_text: Mapping[str, np.ndarray] | None = None
    ):
        self.run = run
        self._frozen = FrozenModels(models, None if empty_text is None else {"empty": dict(empty_text)})
        vae = models["vae"].cfg
        self.latent_shape = vae.latent_shape(run.data.frames, run.data.height, run.data.width)
        self.layout = layout_of(run, vae)
        _check_channels(run, vae)
        self.tokens_per_clip = (
            run.data.packing.length if run.data.packed else count_tokens(run.model, self.latent_shape)
        )
        # What a packed sequence costs depends on what is in it.
        self.flops_per_clip = None if run.data.packed else self._train_flops(encodes_text=empty_text is None)

    @staticmethod
    def required_models(run: DiTRun) -> tuple[str, ...]:
        return ("vae", "text") if run.text_encoder else ("vae",)

    def init(self, rngs: nnx.Rngs) -> TextToVideo:
        return build_model(self.run, rngs)

    def frozen_arrays(self) -> PyTree:
        return self._frozen.arrays()

    def frozen_shardings(self, mesh: Mesh) -> PyTree:
        return self._frozen.shardings(mesh)

    def draw(self, batch: Batch, key: RandomKey) -> dict[str, Array]:
        latent_key, time_key, noise_key = jax.random.split(key, 3)
        shape = self.layout.latent_shape(batch)
        draws = {"latent": jax.random.normal(latent_key, shape)} if self.run.latent_sampling == "sample" else {}
        timesteps = self.run.objective.timesteps
        t = sample_timesteps(timesteps, time_key, batch.valid.shape, num_tokens=self.layout.count_tokens(batch))
        return draws | {"t": t, "noise": jax.random.normal(noise_key, shape)}

    def loss(
        self, model: TextToVideo, frozen: PyTree, batch: Batch, draws: dict[str, Array]
    ) -> tuple[Float[Array, "B ..."], PerClipValues]:
        latents = self._latents(frozen, batch, draws.get("latent"))
        return self._loss_fn(model, frozen, batch, latents, draws["noise"])(draws["t"]), {}

    def evaluate(self, model: TextToVideo, frozen: PyTree, batch: Batch, key: RandomKey) -> PerClipValues:
        """Return the loss at fixed times and noise on the posterior's mean.

        `loss_t0.1` and so on at each of `EVAL_TIMES`, and the mean of those, `loss`.
        """
        latents = self._latents(frozen, batch, None)
        noise = jax.random.normal(key, latents.shape)
        loss_at = self._loss_fn(model, frozen, batch, latents, noise)
        losses = jax.lax.map(lambda t: loss_at(jnp.full(batch.valid.shape, t)), jnp.asarray(EVAL_TIMES))
        return {"loss": losses.mean(0)} | {f"loss_t{t}": losses[k] for k, t in enumerate(EVAL_TIMES)}

    def sample(self, model: TextToVideo, frozen: PyTree, batch: Batch, key: RandomKey) -> Video:
        """Generate clips for the batch's captions; of packed sequences, for the first caption of each."""
        size, batch = self.layout.clip_size(batch), self.layout.sampling_batch(batch)
        vae, keys = self._frozen.merge("vae", frozen), jax.random.split(key, batch.size)
        cond = self._condition(model, frozen, batch)
        uncond = self._condition(model, frozen, self._unconditional_batch(frozen, batch))
        latents = generate(model, vae, self.run.sampler, keys, cond, uncond, size)
        return jnp.clip(decode_latents(vae, latents), -1.0, 1.0)

    def _loss_fn(
        self, model: TextToVideo, frozen: PyTree, batch: Batch, latents: Array, noise: Array
    ) -> Callable[[Array], Float[Array, "B ..."]]:
        """Return the loss of every clip as a function of the clips' times."""
        conditioning = self._condition(model, frozen, self.layout.caption_batch(batch))
        velocity_fn = self.layout.velocity_fn(model, conditioning, batch)
        reduce = self.layout.reducer(batch)
        return lambda t: compute_loss(
            self.run.objective, velocity_fn, latents, noise, self.layout.token_times(t, batch), reduce
        )

    def _condition(self, model: TextToVideo, frozen: PyTree, batch: Batch) -> Conditioning:
        if batch.text is not None:
            text = batch.text.astype(self.run.text.dtype)
            return Conditioning(text, batch.text_mask, batch.fps, batch.conditions)
        encoder = self._frozen.merge("text", frozen) if "text" in self._frozen else None
        conditioning = model.encode_text(batch.text_ids, batch.text_mask, batch.fps, encoder)
        conditioning = conditioning.with_inputs(batch.conditions)
        return conditioning if encoder is None else jax.lax.stop_gradient(conditioning)

    def _unconditional_batch(self, frozen: PyTree, batch: Batch) -> Batch:
        """Return the batch with empty captions."""
        if batch.text is None:
            ids, mask = empty_captions(batch.text_ids)
            return dataclasses.replace(batch, text_ids=ids, text_mask=mask)
        empty = {name: jnp.broadcast_to(x, (batch.size, *x.shape)) for name, x in frozen["empty"].items()}
        return dataclasses.replace(batch, text=empty["text"], text_mask=empty["text_mask"])

    def _latents(self, frozen: PyTree, batch: Batch, noise: Array | None) -> Float[Array, "B ..."]:
        """Return normalized latents: a sample of the posterior, or its mean without noise."""
        vae = self._frozen.merge("vae", frozen)
        mean, logvar = batch.posterior if batch.video is None else vae.encode(to_float(batch.video))
        latents = mean if noise is None else mean + jnp.exp(0.5 * logvar) * noise
        return jax.lax.stop_gradient(self.layout.normalize(vae, latents, batch))

    def _train_flops(self, *, encodes_text: bool) -> float:
        """Return the FLOPs of training on one clip."""
        run, length = self.run, self.run.data.text_length
        grid = token_grid(self.latent_shape[:3], run.model.patch)
        if run.lora is None:
            flops = dit_cost(run.model, self.tokens_per_clip, length, grid=grid).train_flops
        else:
            adapters = split_model(abstract_module(self.init))[1]
            count = sum(math.prod(x.shape) for x in jax.tree.leaves(adapters))
            flops = adapted_train_flops(run.model, self.tokens_per_clip, length, count, grid=grid)
        if encodes_text:  # a frozen encoder only runs forward
            text = text_cost(run.text, length)
            flops += text.forward_flops if "text" in self._frozen else text.train_flops
        return float(flops)


def _check_channels(run: DiTRun, vae: VAEConfig) -> None:
    channels = run.model.out_channels or run.model.in_channels
    if run.model.in_channels != channels:
        raise ValueError(
            f"model.in_channels is {run.model.in_channels}, but its velocity has {channels} channels: models that "
            "take an image beside the latents can be sampled from, not trained"
        )
    if channels != vae.latent_channels:
        name = "in_channels" if run.model.out_channels is None else "out_channels"
        raise ValueError(
            f"model.{name} is {channels}, but the latents of {run.vae} have {vae.latent_channels} channels"
        )
