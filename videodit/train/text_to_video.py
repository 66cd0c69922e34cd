"""The trained pair of text encoder and transformer, and clips made with it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from videodit.diffusion.sample import SamplerConfig, sample_conditioned
from videodit.models.dit import DiT, DiTConfig
from videodit.models.text import TextConfig, TextEncoder
from videodit.models.vae import VAE
from videodit.nn.embed import token_grid
from videodit.shapes import PerClip, Text, TextIds, TextMask, Video

Condition = tuple[Text, TextMask, PerClip]

EOS = 1  # T5's id of the end of a text; alone it is the empty caption


class TextToVideo(nnx.Module):
    """A transformer, and the encoder of the text that it attends to if that is trained along (`text` is not None)."""

    def __init__(self, dit: DiTConfig, text: TextConfig | None, *, rngs: nnx.Rngs):
        self.dit = DiT(dit, rngs=rngs)
        self.text = None if text is None else TextEncoder(text, rngs=rngs)

    def condition(
        self, text_ids: TextIds, text_mask: TextMask, fps: PerClip, encoder: TextEncoder | None = None
    ) -> Condition:
        """What `velocity` needs to know of the captions; `encoder` is that of a model without one of its own."""
        encoder = encoder if self.text is None else self.text
        return encoder(text_ids, text_mask), text_mask, fps

    def velocity(self, x_BTYXC: Video, t_B: PerClip, condition: Condition) -> Video:
        """The velocity of noisy latents under a condition, float32."""
        text_BSE, text_mask_BS, fps_B = condition
        return self.dit(x_BTYXC, t_B, text_BSE, text_mask_BS, fps_B)


def num_tokens(cfg: DiTConfig, latent_shape: tuple[int, int, int, int]) -> int:
    """Tokens of a clip whose latent has the shape (T, Y, X, C)."""
    t, y, x = token_grid(latent_shape[:3], cfg.patch)
    return t * y * x


def generate(
    model: TextToVideo,
    vae: VAE,
    cfg: SamplerConfig,
    keys: Key[Array, "B"],
    text_ids: TextIds,
    text_mask: TextMask,
    fps: PerClip,
    size: tuple[int, int, int],
    *,
    negative: tuple[TextIds, TextMask] | None = None,
) -> Float[Array, "B T Y X 3"]:
    """Clips for captions: float32 in about [-1, 1].

    Pure and jit-compilable.

    Args:
        keys: one for the noise of each clip.
        text_ids, text_mask: the captions.
        fps: frames a second of each clip.
        size: (frames, height, width) in pixels.
        negative: what guidance leads away from, ids and mask; the empty caption if None.

    Raises:
        ValueError: when the VAE cannot code clips of that size, or the patches do not cover its latent.
    """
    shape = vae.cfg.latent_shape(*size)
    first = jnp.zeros_like(text_ids).at[:, 0].set(1)
    negative = negative or (EOS * first, first > 0)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    latents = sample_conditioned(
        cfg,
        model.velocity,
        noise,
        model.condition(text_ids, text_mask, fps),
        model.condition(*negative, fps),
        num_tokens=num_tokens(model.dit.cfg, shape),
    )
    return vae.decode(vae.denormalise(latents))
