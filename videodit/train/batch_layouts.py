"""How clips lie in the rows of a batch: one clip a row, or several clips of latents packed into each.

A layout says what shapes a batch's times and noise have, how the model is called on it, and how errors become one loss
for every clip. A task is the same whatever the layout.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, Num

from videodit.config.run import DiTRun
from videodit.diffusion.objective import Reducer, VelocityOfTokensFn, mean_per_clip
from videodit.models.conditioning import Conditioning
from videodit.models.text_to_video import TextToVideo, count_tokens
from videodit.models.vae import VAE, VAEConfig
from videodit.shapes import PerSegment, Segments
from videodit.train.batch import Batch

CAPTION_FIELDS = "text_ids", "text_mask", "text"
Size = tuple[int, int, int]


@runtime_checkable
class BatchLayout(Protocol):
    """How clips lie in the rows of a batch; see the head of this file. Numbers for every clip are [B] or [B, K]."""

    def latent_shape(self, batch: Batch) -> tuple[int, ...]:
        """Return the shape of a batch's latents, and so of its noise."""
        ...

    def count_tokens(self, batch: Batch) -> int | Int[Array, "B K"]:
        """Return the tokens of a clip, or of each."""
        ...

    def normalize(self, vae: VAE, latents: Float[Array, "B ..."], batch: Batch) -> Float[Array, "B ..."]:
        """Normalize latents with the autoencoder's statistics."""
        ...

    def caption_batch(self, batch: Batch) -> Batch:
        """Return the batch with one caption a row, to be encoded."""
        ...

    def token_times(self, t: Float[Array, "B ..."], batch: Batch) -> Float[Array, "B ..."]:
        """Return the times of clips as the model takes them: of clips, or of tokens."""
        ...

    def velocity_fn(self, model: TextToVideo, conditioning: Conditioning, batch: Batch) -> VelocityOfTokensFn:
        """Return the model as a function of noisy latents and times alone."""
        ...

    def reducer(self, batch: Batch) -> Reducer:
        """Return what reduces the errors of values to one loss for every clip."""
        ...

    def sampling_batch(self, batch: Batch) -> Batch:
        """Return a batch with one clip a row, to sample for its captions."""
        ...

    def clip_size(self, batch: Batch) -> Size:
        """Return frames, height and width, in pixels, of clips to sample for the batch."""
        ...


@dataclasses.dataclass(frozen=True)
class ClipRows:
    """One clip a row."""

    run: DiTRun
    vae: VAEConfig

    def latent_shape(self, batch: Batch) -> tuple[int, ...]:
        if batch.video is None:
            return batch.latent_mean.shape
        return (batch.size, *self.vae.latent_shape(*batch.video.shape[1:4]))

    def count_tokens(self, batch: Batch) -> int:
        return count_tokens(self.run.model, self.latent_shape(batch)[1:])

    def normalize(self, vae: VAE, latents: Float[Array, "B ..."], batch: Batch) -> Float[Array, "B ..."]:
        return vae.normalize(latents)

    def caption_batch(self, batch: Batch) -> Batch:
        return batch

    def token_times(self, t: Float[Array, "B ..."], batch: Batch) -> Float[Array, "B ..."]:
        return t

    def velocity_fn(self, model: TextToVideo, conditioning: Conditioning, batch: Batch) -> VelocityOfTokensFn:
        return lambda x, t: model.velocity(x, t, conditioning)

    def reducer(self, batch: Batch) -> Reducer:
        return mean_per_clip

    def sampling_batch(self, batch: Batch) -> Batch:
        return batch

    def clip_size(self, batch: Batch) -> Size:
        if batch.video is not None:
            return batch.video.shape[1:4]
        t, y, x, _ = batch.latent_mean.shape[1:]
        return 1 + (t - 1) * self.vae.time_stride, y * self.vae.space_stride, x * self.vae.space_stride


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Several clips of latents in each row: any size and length in one compiled step.

    A clip's loss is what it would be alone, whatever shares its row. Numbers for every clip are [B, K], one for each
    clip that a row may hold.
    """

    run: DiTRun
    vae: VAEConfig

    def latent_shape(self, batch: Batch) -> tuple[int, ...]:
        return batch.latent_mean.shape

    def count_tokens(self, batch: Batch) -> Int[Array, "B K"]:
        ones_BL = jnp.ones(batch.segments.shape, jnp.int32)
        return jnp.maximum(sum_per_segment(ones_BL, batch.segments, batch.valid.shape[1]), 1)

    def normalize(self, vae: VAE, latents: Float[Array, "B ..."], batch: Batch) -> Float[Array, "B ..."]:
        """Normalize the latents of patches; those of padding are zero."""
        by_channel = rearrange(latents, "b l (p c) -> b l p c", c=vae.cfg.latent_channels)
        normalized = rearrange(vae.normalize(by_channel), "b l p c -> b l (p c)")
        return jnp.where((batch.segments > 0)[..., None], normalized, 0)

    def caption_batch(self, batch: Batch) -> Batch:
        fields = {name: getattr(batch, name) for name in (*CAPTION_FIELDS, "fps", "valid")}
        flat = {name: None if x is None else rearrange(x, "b k ... -> (b k) ...") for name, x in fields.items()}
        return Batch(video=None, latent_mean=None, latent_logvar=None, **flat)

    def token_times(self, t: Float[Array, "B ..."], batch: Batch) -> Float[Array, "B ..."]:
        return spread_to_tokens(t, batch.segments)

    def velocity_fn(self, model: TextToVideo, conditioning: Conditioning, batch: Batch) -> VelocityOfTokensFn:
        clips, cfg, segments_BL = batch.valid.shape[1], model.dit.cfg, batch.segments
        text, mask = conditioning.text, conditioning.text_mask
        if cfg.attend_padding:
            text, mask = jnp.where(mask[..., None], text, 0), jnp.ones_like(mask)
        text_segments_BKS = jnp.arange(1, clips + 1)[:, None] * rearrange(mask, "(b k) s -> b k s", k=clips)
        fps_BL = jnp.where(segments_BL > 0, spread_to_tokens(batch.fps, segments_BL), cfg.fps_reference)
        positions_BL3 = batch.positions.astype(jnp.float32).at[..., 0].multiply(cfg.fps_reference / fps_BL)
        return lambda x_BLP, t_BL: model.token_velocity(
            x_BLP,
            t_BL,
            positions_BL3,
            rearrange(text, "(b k) s e -> b (k s) e", k=clips),
            rearrange(text_segments_BKS, "b k s -> b (k s)"),
            segments_BL,
        )

    def reducer(self, batch: Batch) -> Reducer:
        segments_BL, clips = batch.segments, batch.valid.shape[1]

        def mean_per_segment(error_BLP: Float[Array, "B L P"]) -> PerSegment:
            error_BL = jnp.mean(error_BLP, axis=-1)
            tokens_BK = sum_per_segment(jnp.ones_like(error_BL), segments_BL, clips)
            return sum_per_segment(error_BL, segments_BL, clips) / jnp.maximum(tokens_BK, 1)

        return mean_per_segment

    def sampling_batch(self, batch: Batch) -> Batch:
        """Return the first caption of every row, at the run's own frame rate."""
        fields = {name: getattr(batch, name) for name in (*CAPTION_FIELDS, "valid")}
        first = {name: None if x is None else x[:, 0] for name, x in fields.items()}
        return dataclasses.replace(batch, **first, fps=jnp.full(batch.size, self.run.data.fps))

    def clip_size(self, batch: Batch) -> Size:
        """Return the run's own size: a row's clips are of many sizes."""
        return self.run.data.frames, self.run.data.height, self.run.data.width


def layout_of(run: DiTRun, vae: VAEConfig) -> BatchLayout:
    """Return the layout of a run's batches."""
    return PackedRows(run, vae) if run.data.packed else ClipRows(run, vae)


def spread_to_tokens(values_BK: PerSegment, segments_BL: Segments) -> Float[Array, "B L"]:
    """Return for every token the value of its clip; for padding, that of the first."""
    return jnp.take_along_axis(values_BK, jnp.maximum(segments_BL - 1, 0), axis=1)


def sum_per_segment(values_BL: Num[Array, "B L"], segments_BL: Segments, clips: int) -> Num[Array, "B K"]:
    """Return the sum over the tokens of each clip."""
    is_member_BKL = segments_BL[:, None, :] == jnp.arange(1, clips + 1)[:, None]
    return jnp.sum(jnp.where(is_member_BKL, values_BL[:, None, :], 0), axis=-1)
