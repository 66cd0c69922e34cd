"""The trained pair of text encoder and transformer, what it may be conditioned on, and clips made with it."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from videodit.diffusion.guidance import ConditionalVelocityFn
from videodit.diffusion.sample import SamplerConfig, sample_conditioned
from videodit.models.dit import DiT, DiTConfig
from videodit.models.text import TextConfig, TextEncoder
from videodit.models.tiling import decode_tiled
from videodit.models.vae import VAE
from videodit.nn.embed import token_grid
from videodit.nn.lora import LoRAConfig, adapt
from videodit.shapes import PerClip, TextIds, TextMask, Video

LARGE = 2**24  # pixels of a clip from which on the autoencoder goes through it chunk by chunk
EOS = 1  # T5's id of the end of a text; alone it is the empty caption


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Condition:
    """What a velocity is conditioned on. Its leaves are arrays with the batch first, or None.

    text, mask: `shapes.Text` and `shapes.TextMask`. fps: `shapes.PerClip`.
    image: [B, I, E], the tokens of an image encoder.
    beside: [B, T, Y, X, C], channels that go with the noisy latents (`seen_frames`).
    known: [B, t, Y, X, C], the first latent frames, which are not noisy.
    """

    text: Any
    mask: Any
    fps: Any
    image: Any = None
    beside: Any = None
    known: Any = None


class TextToVideo(nnx.Module):
    """A transformer, and the encoder of the text that it attends to if that is trained along (`text` is not None).

    With `lora`, adapters are all that is trained of the transformer.
    """

    def __init__(self, dit: DiTConfig, text: TextConfig | None, lora: LoRAConfig | None = None, *, rngs: nnx.Rngs):
        self.dit = DiT(dit, rngs=rngs)
        self.text = None if text is None else TextEncoder(text, rngs=rngs)
        if lora is not None:
            adapt(self.dit, lora, rngs=rngs)

    def condition(
        self, text_ids: TextIds, text_mask: TextMask, fps: PerClip, encoder: TextEncoder | None = None
    ) -> Condition:
        """What `velocity` needs to know of the captions; `encoder` is that of a model without one of its own."""
        encoder = encoder if self.text is None else self.text
        return Condition(encoder(text_ids, text_mask), text_mask, fps)

    def velocity(self, x_BTYXC: Video, t_B: PerClip, condition: Condition) -> Video:
        """The velocity of noisy latents under a condition, float32; that of known frames means nothing."""
        t = t_B
        if condition.known is not None:
            x_BTYXC = with_known(x_BTYXC, condition.known)
            frames, height, width = token_grid(x_BTYXC.shape[1:4], self.dit.cfg.patch)
            noisy_T = jnp.arange(frames) >= condition.known.shape[1] // self.dit.cfg.patch[0]
            t = t_B[:, None] * jnp.repeat(noisy_T, height * width)
        if condition.beside is not None:
            x_BTYXC = jnp.concatenate([x_BTYXC, condition.beside], axis=-1)
        return self.dit(x_BTYXC, t, condition.text, condition.mask, condition.fps, condition.image)


def with_known(x_BTYXC: Video, known_BTYXC: Float[Array, "B t Y X C"]) -> Video:
    """Latents whose first frames are known."""
    return jnp.concatenate([known_BTYXC, x_BTYXC[:, known_BTYXC.shape[1] :]], axis=1)


def seen_frames(
    vae: VAE,
    first: Float[Array, "B Y X 3"],
    last: Float[Array, "B Y X 3"] | None,
    frames: int,
) -> Float[Array, "B T2 Y2 X2 C2"]:
    """Wan's condition on a clip's first frame, or its first and last: which frames are seen, and their latents.

    One channel of the mask a frame that a latent codes, the first frame counting for all of the first latent; then the
    normalised latents of a clip of the seen frames and grey (arXiv:2503.20314, section 5.1).

    Args:
        first, last: pixels in [-1, 1].
        frames: of the clip, 1 + 4k.
    """
    batch, height, width, _ = first.shape
    chunk = vae.cfg.time_stride if frames * height * width >= LARGE else None
    video = jnp.zeros((batch, frames, height, width, 3), first.dtype).at[:, 0].set(first)
    seen_T = jnp.zeros(frames).at[0].set(1)
    if last is not None:
        video, seen_T = video.at[:, -1].set(last), seen_T.at[-1].set(1)
    latents = vae.normalise(vae.encode(video, chunk=chunk)[0])
    stride = vae.cfg.time_stride
    mask_TC = jnp.concatenate([jnp.repeat(seen_T[:1], stride), seen_T[1:]]).reshape(-1, stride)
    mask = jnp.broadcast_to(mask_TC[None, :, None, None], (*latents.shape[:-1], stride))
    return jnp.concatenate([mask, latents], axis=-1)


def num_tokens(cfg: DiTConfig, latent_shape: tuple[int, int, int, int]) -> int:
    """Tokens of a clip whose latent has the shape (T, Y, X, C)."""
    t, y, x = token_grid(latent_shape[:3], cfg.patch)
    return t * y * x


def empty(text_ids: TextIds) -> tuple[TextIds, TextMask]:
    """Ids and mask of as many empty captions."""
    first = jnp.zeros_like(text_ids).at[:, 0].set(1)
    return EOS * first, first > 0


def generate(
    model: TextToVideo,
    vae: VAE,
    cfg: SamplerConfig,
    keys: Key[Array, "B"],
    cond: Condition,
    uncond: Condition,
    size: tuple[int, int, int],
    *,
    expert: ConditionalVelocityFn | None = None,
) -> Video:
    """Normalised latents of new clips. Pure and jit-compilable.

    Args:
        vae: of which the latents are; only its shape matters.
        keys: one for the noise of each clip.
        cond, uncond: what guidance leads to, and away from.
        size: (frames, height, width) in pixels.
        expert: the velocity below the sampler's `boundary`, if the model has one of its own for that.

    Raises:
        ValueError: when the VAE cannot code clips of that size, or the patches do not cover its latent.
    """
    shape = vae.cfg.latent_shape(*size)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    tokens = num_tokens(model.dit.cfg, shape)
    latents = sample_conditioned(cfg, model.velocity, noise, cond, uncond, num_tokens=tokens, expert=expert)
    return latents if cond.known is None else with_known(latents, cond.known)


def decode(vae: VAE, latents: Float[Array, "B t y x C"], *, tile: int | None = None) -> Float[Array, "B T Y X 3"]:
    """Clips of normalised latents, in about [-1, 1]: large ones a latent frame at a time, and in tiles if asked.

    tile: side of a tile, latents; tiles overlap by a quarter.
    """
    pixels = math.prod(latents.shape[1:4]) * vae.cfg.time_stride * vae.cfg.space_stride**2
    chunk = 1 if pixels >= LARGE else None
    z_BTYXC = vae.denormalise(latents)
    if tile is None:
        return vae.decode(z_BTYXC, chunk=chunk)
    return decode_tiled(vae, z_BTYXC, tile=tile, overlap=max(1, tile // 4), chunk=chunk)
