"""Latents generated under a conditioning, and clips decoded from them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from videodit.diffusion.guidance import ConditionalVelocityFn
from videodit.diffusion.sample import SamplerConfig, sample_conditioned
from videodit.models.conditioning import FIRST_FRAMES, Conditioning, replace_first_frames
from videodit.models.pixels import to_float
from videodit.models.text_to_video import TextToVideo, count_tokens
from videodit.models.tiling import decode_tiled
from videodit.models.vae import VAE
from videodit.shapes import Video

CHUNKED_PIXELS = 2**24  # pixels of a clip from which on the autoencoder goes through it chunk by chunk


def generate(
    model: TextToVideo,
    vae: VAE,
    cfg: SamplerConfig,
    keys: Key[Array, "B"],
    cond: Conditioning,
    uncond: Conditioning,
    size: tuple[int, int, int],
    *,
    low_noise_expert: ConditionalVelocityFn | None = None,
) -> Video:
    """Generate the normalized latents of new clips. Pure and jit-compilable.

    Args:
        vae: the autoencoder of the latents; only its configuration is read.
        keys: one for the noise of each clip.
        cond, uncond: the conditionings that guidance leads to, and away from.
        size: (frames, height, width) in pixels.
        low_noise_expert: the velocity below the sampler's `expert_boundary`, of models that have a second one.

    Raises:
        ValueError: when the VAE cannot encode clips of that size, or the patches do not cover its latent.
    """
    shape = vae.cfg.latent_shape(*size)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    tokens = count_tokens(model.dit.cfg, shape)
    latents = sample_conditioned(
        cfg, model.velocity, noise, cond, uncond, num_tokens=tokens, low_noise_expert=low_noise_expert
    )
    return replace_first_frames(latents, cond.inputs[FIRST_FRAMES]) if FIRST_FRAMES in cond.inputs else latents


def decode_latents(
    vae: VAE, latents: Float[Array, "B t y x C"], *, tile: int | None = None
) -> Float[Array, "B T Y X 3"]:
    """Decode normalized latents to clips, in about [-1, 1]; large ones a latent frame at a time.

    Args:
        tile: side of the tiles that frames are decoded in, latents, which overlap by a quarter; None for whole frames.
    """
    pixels = math.prod(latents.shape[1:4]) * vae.cfg.time_stride * vae.cfg.space_stride**2
    chunk = 1 if pixels >= CHUNKED_PIXELS else None
    z_BTYXC = vae.denormalize(latents)
    if tile is None:
        return vae.decode(z_BTYXC, chunk=chunk)
    return decode_tiled(vae, z_BTYXC, tile=tile, overlap=max(1, tile // 4), chunk=chunk)


def encode_video(
    vae: VAE, video: Shaped[Array, "B T Y X 3"]
) -> tuple[Float[Array, "B t y x C"], Float[Array, "B t y x C"]]:
    """Return the means and log-variances of the latents of clips, bytes or floats in [-1, 1]; large ones in chunks."""
    large = math.prod(video.shape[1:4]) >= CHUNKED_PIXELS
    return vae.encode(to_float(video), chunk=vae.cfg.time_stride if large else None)


def encode_condition_frames(
    vae: VAE,
    first: Float[Array, "B Y X 3"],
    last: Float[Array, "B Y X 3"] | None,
    frames: int,
) -> Float[Array, "B T2 Y2 X2 C2"]:
    """Return Wan's `concat_channels` for a clip's first frame, or its first and last.

    One channel of the condition mask for each frame that a latent encodes, the first frame counting for all of the
    first latent; then the normalized latents of a clip of those frames and grey (arXiv:2503.20314, section 5.1).

    Args:
        first, last: pixels in [-1, 1].
        frames: of the clip, 1 + 4k.
    """
    batch, height, width, _ = first.shape
    video = jnp.zeros((batch, frames, height, width, 3), first.dtype).at[:, 0].set(first)
    condition_mask_T = jnp.zeros(frames).at[0].set(1)
    if last is not None:
        video, condition_mask_T = video.at[:, -1].set(last), condition_mask_T.at[-1].set(1)
    latents = vae.normalize(encode_video(vae, video)[0])
    stride = vae.cfg.time_stride
    mask_TC = jnp.concatenate([jnp.repeat(condition_mask_T[:1], stride), condition_mask_T[1:]]).reshape(-1, stride)
    mask = jnp.broadcast_to(mask_TC[None, :, None, None], (*latents.shape[:-1], stride))
    return jnp.concatenate([mask, latents], axis=-1)
