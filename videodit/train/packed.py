"""Flow matching on rows of tokens that several clips of latents share: any size and length in one compiled step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Num, PyTree

from videodit.config.run import DiTRun
from videodit.diffusion.path import interpolate, velocity
from videodit.diffusion.timesteps import sample_timesteps
from videodit.models.text import TextEncoder
from videodit.models.text_to_video import TextToVideo
from videodit.models.vae import VAE
from videodit.shapes import Patches, PerSegment, RandomKey, Segments, Video
from videodit.train.batch import Batch
from videodit.train.tasks import DiTTask, at_eval_times

TOLD = "text_ids", "text_mask", "text"  # of a caption


class PackedTask(DiTTask):
    """What `DiTTask` does, of packed rows: a clip's loss is what it would be alone, whatever shares its row.

    Every number a clip is [B, K], one for each clip that a row may hold.

    Raises:
        ValueError: as `DiTTask`, and for a run that packs nothing.
    """

    def __init__(
        self,
        run: DiTRun,
        vae: VAE,
        encoder: TextEncoder | None = None,
        empty: Mapping[str, Any] | None = None,
    ):
        if not run.data.packed:
            raise ValueError("data.packing.length is 0: such a run has no packed rows")
        super().__init__(run, vae, encoder, empty)
        # Of a row; what it costs depends on what is in it.
        self.tokens_per_clip, self.flops_per_clip = run.data.packing.length, None

    def draw(self, batch: Batch, key: RandomKey) -> dict[str, Array]:
        latent_key, time_key, noise_key = jax.random.split(key, 3)
        shape, clips = batch.latent_mean.shape, batch.real.shape
        drawn = {"latent": jax.random.normal(latent_key, shape)} if self.run.latent_sampling == "sample" else {}
        tokens = jnp.maximum(by_clip(jnp.ones(shape[:2], jnp.int32), batch.segments, clips[1]), 1)
        return drawn | {
            "t": sample_timesteps(self.run.timesteps, time_key, clips, num_tokens=tokens),
            "noise": jax.random.normal(noise_key, shape),
        }

    def loss(
        self, model: TextToVideo, frozen: PyTree, batch: Batch, draws: dict[str, Array]
    ) -> tuple[PerSegment, dict[str, PerSegment]]:
        data = self._patches(frozen, batch, draws.get("latent"))
        return self._loss(model, frozen, batch, data, draws["noise"], draws["t"]), {}

    def evaluate(self, model: TextToVideo, frozen: PyTree, batch: Batch, key: RandomKey) -> dict[str, PerSegment]:
        data = self._patches(frozen, batch, None)
        noise = jax.random.normal(key, data.shape)

        def at(t: Array) -> PerSegment:
            return self._loss(model, frozen, batch, data, noise, jnp.full(batch.real.shape, t))

        return at_eval_times(at)

    def sample(self, model: TextToVideo, frozen: PyTree, batch: Batch, key: RandomKey) -> Video:
        """Clips of the run's own size for the first caption of every row."""
        held = {name: getattr(batch, name) for name in (*TOLD, "real")}
        firsts = {name: None if of is None else of[:, 0] for name, of in held.items()}
        fps = jnp.full(batch.size, self.run.data.fps)
        return super().sample(model, frozen, dataclasses.replace(batch, **firsts, fps=fps), key)

    def clip_size(self, batch: Batch) -> tuple[int, int, int]:
        """That of the run: a row's clips are of many sizes."""
        return self.size

    def _loss(
        self, model: TextToVideo, frozen: PyTree, batch: Batch, data_BLP: Patches, noise_BLP: Patches, t_BK: PerSegment
    ) -> PerSegment:
        clips, cfg, segments_BL = batch.real.shape[1], model.dit.cfg, batch.segments
        held = {name: getattr(batch, name) for name in (*TOLD, "fps")}
        apart = {name: None if of is None else rearrange(of, "b k ... -> (b k) ...") for name, of in held.items()}
        told = self._condition(model, frozen, dataclasses.replace(batch, **apart))
        text, mask = told.text, told.text_mask
        if cfg.attend_padding:
            text, mask = jnp.where(mask[..., None], text, 0), jnp.ones_like(mask)
        owner_BKS = jnp.arange(1, clips + 1)[:, None] * rearrange(mask, "(b k) s -> b k s", k=clips)
        t_BL = of_tokens(t_BK, segments_BL)
        fps_BL = jnp.where(segments_BL > 0, of_tokens(batch.fps, segments_BL), cfg.fps_reference)
        positions_BL3 = batch.positions.astype(jnp.float32).at[..., 0].multiply(cfg.fps_reference / fps_BL)
        v_BLP = model.dit.tokens(
            interpolate(data_BLP, noise_BLP, t_BL),
            t_BL,
            positions_BL3,
            rearrange(text, "(b k) s e -> b (k s) e", k=clips),
            rearrange(owner_BKS, "b k s -> b (k s)"),
            segments_BL,
        )
        error_BL = jnp.mean(jnp.square(v_BLP - velocity(data_BLP, noise_BLP)), axis=-1)
        tokens_BK = by_clip(jnp.ones_like(error_BL), segments_BL, clips)
        return by_clip(error_BL, segments_BL, clips) / jnp.maximum(tokens_BK, 1)

    def _patches(self, frozen: PyTree, batch: Batch, noise: Patches | None) -> Patches:
        """Normalised latents: a draw from the posterior, or its mean without noise; zero where there is no clip."""
        vae = nnx.merge(self._vae, *frozen["vae"])
        (mean, logvar), channels = batch.moments, vae.cfg.latent_channels
        drawn = mean if noise is None else mean + jnp.exp(0.5 * logvar) * noise
        normal = rearrange(vae.normalize(rearrange(drawn, "b l (p c) -> b l p c", c=channels)), "b l p c -> b l (p c)")
        return jax.lax.stop_gradient(jnp.where((batch.segments > 0)[..., None], normal, 0))


def of_tokens(values_BK: PerSegment, segments_BL: Segments) -> Float[Array, "B L"]:
    """For every token the value of its clip; for tokens of none, that of the first."""
    return jnp.take_along_axis(values_BK, jnp.maximum(segments_BL - 1, 0), axis=1)


def by_clip(values_BL: Num[Array, "B L"], segments_BL: Segments, clips: int) -> Num[Array, "B K"]:
    """The sum over the tokens of each clip."""
    mine_BKL = segments_BL[:, None, :] == jnp.arange(1, clips + 1)[:, None]
    return jnp.sum(jnp.where(mine_BKL, values_BL[:, None, :], 0), axis=-1)
