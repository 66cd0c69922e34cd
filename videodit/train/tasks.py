"""The two things that are trained, behind one protocol: one loop, one step and one checkpointer serve both."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from videodit.checkpoint.restore import build_model
from videodit.config.run import DiTRun, VAERun
from videodit.diffusion.objective import loss_at
from videodit.diffusion.timesteps import sample_timesteps
from videodit.inference.generate import decode_latents, generate
from videodit.models.conditioning import Conditioning
from videodit.models.flops import adapted_train_flops, dit_cost, text_cost
from videodit.models.text import TextEncoder
from videodit.models.text_to_video import TextToVideo, count_tokens, empty_captions
from videodit.models.vae import VAE, kl_divergence
from videodit.nn.state import abstract_arrays, abstract_module, split_model
from videodit.shapes import PerClip, RandomKey, Video
from videodit.train.batch import Batch

Aux = dict[str, PerClip]
EVAL_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@runtime_checkable
class Task(Protocol):
    """An objective. Everything but `init` and `frozen` is a pure function that the step compiles.

    tokens_per_clip: latent positions or tokens of a clip. flops_per_clip: FLOPs of training on one clip, of what is
    trained; None if unknown.
    """

    tokens_per_clip: int
    flops_per_clip: float | None

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh model: what is trained."""
        ...

    def frozen(self) -> PyTree:
        """Arrays that the loss needs and nobody trains; None if there are none."""
        ...

    def frozen_places(self, mesh: Mesh) -> PyTree:
        """Shapes of those arrays, and where they belong on a mesh."""
        ...

    def draw(self, batch: Batch, key: RandomKey) -> PyTree[Array]:
        """All the randomness of a step, the batch as first dim of every array, so that it can be cut like the batch."""
        ...

    def loss(self, model: Any, frozen: PyTree, batch: Batch, draws: PyTree) -> tuple[PerClip, Aux]:
        """One loss a clip, and other numbers a clip that are worth logging."""
        ...

    def evaluate(self, model: Any, frozen: PyTree, batch: Batch, key: RandomKey) -> Aux:
        """Held-out numbers a clip, repeatable for a given key."""
        ...

    def sample(self, model: Any, frozen: PyTree, batch: Batch, key: RandomKey) -> Float[Array, "B T Y X 3"]:
        """Clips in [-1, 1] to be shown beside those of the batch."""
        ...


class VAETask:
    """Autoencoding: the errors of the reconstruction and the divergence of the posterior, weighted as the run says."""

    def __init__(self, run: VAERun):
        self.run = run
        self.latent_shape = run.model.latent_shape(run.data.frames, run.data.height, run.data.width)
        self.tokens_per_clip = math.prod(self.latent_shape[:3])
        self.flops_per_clip = None

    def init(self, rngs: nnx.Rngs) -> VAE:
        return VAE(self.run.model, rngs=rngs)

    def frozen(self) -> None:
        return None

    def frozen_places(self, mesh: Mesh) -> None:
        return None

    def draw(self, batch: Batch, key: RandomKey) -> Array:
        return jax.random.normal(key, (batch.size, *self.run.model.latent_shape(*batch.video.shape[1:4])))

    def loss(self, model: VAE, frozen: None, batch: Batch, draws: Video) -> tuple[PerClip, Aux]:
        mean, logvar = model.encode(batch.pixels)
        video = model.decode(mean + jnp.exp(0.5 * logvar) * draws)
        error = video - batch.pixels
        aux = {"l1": _mean(jnp.abs(error)), "l2": _mean(jnp.square(error)), "kl": kl_divergence(mean, logvar)}
        if self.run.gradient:
            aux["gradient"] = sum(_mean(jnp.abs(jnp.diff(error, axis=axis))) for axis in (2, 3))
        return sum(getattr(self.run, name) * value_B for name, value_B in aux.items()), aux

    def evaluate(self, model: VAE, frozen: None, batch: Batch, key: RandomKey) -> Aux:
        """L1 and PSNR (dB, of the range [-1, 1]) of the reconstruction from the posterior's mean."""
        mean, logvar = model.encode(batch.pixels)
        error = jnp.clip(model.decode(mean), -1.0, 1.0) - batch.pixels
        psnr_B = 10 * jnp.log10(4.0 / jnp.maximum(_mean(jnp.square(error)), 1e-10))
        return {"l1": _mean(jnp.abs(error)), "psnr": psnr_B, "kl": kl_divergence(mean, logvar)}

    def sample(self, model: VAE, frozen: None, batch: Batch, key: RandomKey) -> Video:
        """The reconstruction from the posterior's mean."""
        return jnp.clip(model.decode(model.encode(batch.pixels)[0]), -1.0, 1.0)


class DiTTask:
    """Flow matching on the normalised latents of a frozen autoencoder, given text.

    Batches hold clips, which the step encodes, or the moments of their latents.

    Args:
        vae: the autoencoder; one of shapes alone (`nnx.eval_shape`) will do for tracing.
        encoder: the text encoder, of runs that train none along; likewise.
        empty: in its place where batches hold embeddings: those of the empty caption, `text` [S, E] and `text_mask`
            [S]; the encoder is not needed then.

    Raises:
        ValueError: when the channels of latents, or the sizes of clips, do not fit.
    """

    def __init__(
        self,
        run: DiTRun,
        vae: VAE,
        encoder: TextEncoder | None = None,
        empty: Mapping[str, Any] | None = None,
    ):
        self.run, self._empty = run, None if empty is None else dict(empty)
        self._held = {"vae": vae} if encoder is None else {"vae": vae, "text": encoder}
        self._vae, self._encoder = split_model(vae)[0], None if encoder is None else split_model(encoder)[0]
        self._vae_cfg = vae.cfg
        self.size = run.data.frames, run.data.height, run.data.width
        self.latent_shape = vae.cfg.latent_shape(*self.size)
        channels = run.model.out_channels or run.model.in_channels
        if run.model.in_channels != channels:
            raise ValueError(
                f"model.in_channels is {run.model.in_channels}, but its velocity has {channels} channels: models that "
                "take an image beside the latents can be sampled from, not trained"
            )
        if channels != vae.cfg.latent_channels:
            name = "in_channels" if run.model.out_channels is None else "out_channels"
            raise ValueError(
                f"model.{name} is {channels}, but the latents of {run.vae} have {vae.cfg.latent_channels} channels"
            )
        self.tokens_per_clip = count_tokens(run.model, self.latent_shape)
        length = run.data.text_length
        size = run.model, self.tokens_per_clip, length
        if run.lora is None:
            cost = dit_cost(*size).train_flops
        else:
            adapters = split_model(abstract_module(self.init))[1]
            cost = adapted_train_flops(*size, sum(math.prod(x.shape) for x in jax.tree.leaves(adapters)))
        text = text_cost(run.text, length)
        if empty is None:  # an encoder that stays as it is only runs forward
            cost += text.train_flops if encoder is None else text.forward_flops
        self.flops_per_clip = float(cost)

    def init(self, rngs: nnx.Rngs) -> TextToVideo:
        return build_model(self.run, rngs)

    def frozen(self) -> PyTree:
        models = {name: split_model(model)[1:] for name, model in self._held.items()}
        return models if self._empty is None else models | {"empty": self._empty}

    def frozen_places(self, mesh: Mesh) -> PyTree:
        models = {name: abstract_arrays(model, mesh)[1:] for name, model in self._held.items()}
        if self._empty is None:
            return models
        whole = NamedSharding(mesh, PartitionSpec())
        shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole) for name, x in self._empty.items()}
        return models | {"empty": shapes}

    def draw(self, batch: Batch, key: RandomKey) -> dict[str, Array]:
        latent_key, time_key, noise_key = jax.random.split(key, 3)
        shape = batch.size, *self._shape(batch)
        drawn = {"latent": jax.random.normal(latent_key, shape)} if self.run.latent_sampling == "sample" else {}
        return drawn | {
            "t": sample_timesteps(
                self.run.timesteps, time_key, shape[:1], num_tokens=count_tokens(self.run.model, shape[1:])
            ),
            "noise": jax.random.normal(noise_key, shape),
        }

    def loss(self, model: TextToVideo, frozen: PyTree, batch: Batch, draws: dict[str, Array]) -> tuple[PerClip, Aux]:
        latents = self._latents(frozen, batch, draws.get("latent"))
        condition = self._condition(model, frozen, batch)
        return loss_at(lambda x, t: model.velocity(x, t, condition), latents, draws["noise"], draws["t"]), {}

    def evaluate(self, model: TextToVideo, frozen: PyTree, batch: Batch, key: RandomKey) -> Aux:
        """The loss at fixed times and noise on the posterior's mean: `loss`, and one like `loss_t0.1` for each time."""
        latents = self._latents(frozen, batch, None)
        noise = jax.random.normal(key, latents.shape)
        condition = self._condition(model, frozen, batch)

        def at(t: Array) -> PerClip:
            return loss_at(lambda x, t: model.velocity(x, t, condition), latents, noise, jnp.full(batch.size, t))

        return at_eval_times(at)

    def sample(self, model: TextToVideo, frozen: PyTree, batch: Batch, key: RandomKey) -> Video:
        """Clips generated for the batch's captions."""
        vae, keys = nnx.merge(self._vae, *frozen["vae"]), jax.random.split(key, batch.size)
        cond, uncond = (self._condition(model, frozen, each) for each in (batch, self._unsaid(frozen, batch)))
        latents = generate(model, vae, self.run.sampler, keys, cond, uncond, self.clip_size(batch))
        return jnp.clip(decode_latents(vae, latents), -1.0, 1.0)

    def clip_size(self, batch: Batch) -> tuple[int, int, int]:
        """Frames, height and width of a batch's clips."""
        if batch.video is not None:
            return batch.video.shape[1:4]
        t, y, x, _ = batch.latent_mean.shape[1:]
        cfg = self._vae_cfg
        return 1 + (t - 1) * cfg.time_stride, y * cfg.space_stride, x * cfg.space_stride

    def _shape(self, batch: Batch) -> tuple[int, int, int, int]:
        """Of a clip's latent."""
        return (
            batch.latent_mean.shape[1:] if batch.video is None else self._vae_cfg.latent_shape(*batch.video.shape[1:4])
        )

    def _unsaid(self, frozen: PyTree, batch: Batch) -> Batch:
        """The batch with empty captions."""
        if batch.text is None:
            ids, mask = empty_captions(batch.text_ids)
            return dataclasses.replace(batch, text_ids=ids, text_mask=mask)
        said = {name: jnp.broadcast_to(x, (batch.size, *x.shape)) for name, x in frozen["empty"].items()}
        return dataclasses.replace(batch, **said)

    def _condition(self, model: TextToVideo, frozen: PyTree, batch: Batch) -> Conditioning:
        if batch.text is not None:
            return Conditioning(batch.text.astype(self.run.text.dtype), batch.text_mask, batch.fps)
        encoder = None if self._encoder is None else nnx.merge(self._encoder, *frozen["text"])
        condition = model.encode_text(batch.text_ids, batch.text_mask, batch.fps, encoder)
        return condition if encoder is None else jax.lax.stop_gradient(condition)

    def _latents(self, frozen: PyTree, batch: Batch, noise: Video | None) -> Video:
        """Normalised latents: a draw from the posterior, or its mean without noise."""
        vae = nnx.merge(self._vae, *frozen["vae"])
        if batch.video is None:
            mean, logvar = batch.moments
        else:
            mean, logvar = vae.encode(batch.pixels)
        drawn = mean if noise is None else mean + jnp.exp(0.5 * logvar) * noise
        return jax.lax.stop_gradient(vae.normalize(drawn))


def at_eval_times(loss: Callable[[Array], Array]) -> dict[str, Array]:
    """A loss at each of `EVAL_TIMES`, like `loss_t0.1`, and the mean of those, `loss`."""
    losses = jax.lax.map(loss, jnp.asarray(EVAL_TIMES))
    return {"loss": losses.mean(0)} | {f"loss_t{t}": losses[k] for k, t in enumerate(EVAL_TIMES)}


def _mean(x: Float[Array, "B *dims"]) -> PerClip:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
