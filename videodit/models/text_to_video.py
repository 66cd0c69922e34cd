"""The text-to-video model: a transformer, and its text encoder where that is trained along."""

import jax.numpy as jnp
from flax import nnx

from videodit.models.conditioning import CONCAT_CHANNELS, FIRST_FRAMES, IMAGE, Conditioning, replace_first_frames
from videodit.models.dit import DiT, DiTConfig
from videodit.models.text import TextConfig, TextEncoder
from videodit.nn.embed import token_grid
from videodit.nn.lora import LoRAConfig, adapt
from videodit.shapes import PerClip, TextIds, TextMask, Video

EOS = 1  # T5's id of the end of a text; alone it is the empty caption


class TextToVideo(nnx.Module):
    """A transformer, and the encoder of the text that it attends to if that is trained along (`text` is not None).

    With `lora`, adapters are all that is trained of the transformer.
    """

    def __init__(self, dit: DiTConfig, text: TextConfig | None, lora: LoRAConfig | None = None, *, rngs: nnx.Rngs):
        self.dit = DiT(dit, rngs=rngs)
        self.text = None if text is None else TextEncoder(text, rngs=rngs)
        if lora is not None:
            adapt(self.dit, lora, rngs=rngs)

    def encode_text(
        self, text_ids: TextIds, text_mask: TextMask, fps: PerClip, encoder: TextEncoder | None = None
    ) -> Conditioning:
        """Return the conditioning on captions; `encoder` is that of a model which trains none along."""
        encoder = encoder if self.text is None else self.text
        return Conditioning(encoder(text_ids, text_mask), text_mask, fps)

    def velocity(self, x_BTYXC: Video, t_B: PerClip, conditioning: Conditioning) -> Video:
        """Return the velocity of noisy latents in float32; at conditioning frames it is to be ignored."""
        t, inputs = t_B, conditioning.inputs
        if FIRST_FRAMES in inputs:
            x_BTYXC = replace_first_frames(x_BTYXC, inputs[FIRST_FRAMES])
            frames, height, width = token_grid(x_BTYXC.shape[1:4], self.dit.cfg.patch)
            noisy_T = jnp.arange(frames) >= inputs[FIRST_FRAMES].shape[1] // self.dit.cfg.patch[0]
            t = t_B[:, None] * jnp.repeat(noisy_T, height * width)
        if CONCAT_CHANNELS in inputs:
            x_BTYXC = jnp.concatenate([x_BTYXC, inputs[CONCAT_CHANNELS]], axis=-1)
        return self.dit(x_BTYXC, t, conditioning.text, conditioning.text_mask, conditioning.fps, inputs.get(IMAGE))


def count_tokens(cfg: DiTConfig, latent_shape: tuple[int, int, int, int]) -> int:
    """Return the number of tokens of a clip whose latent has the shape (T, Y, X, C)."""
    t, y, x = token_grid(latent_shape[:3], cfg.patch)
    return t * y * x


def empty_captions(text_ids: TextIds) -> tuple[TextIds, TextMask]:
    """Return ids and mask of as many empty captions."""
    first = jnp.zeros_like(text_ids).at[:, 0].set(1)
    return EOS * first, first > 0
