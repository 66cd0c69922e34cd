"""The text-to-video model: a transformer, and its text encoder where that is trained along."""

import math
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from videodit.models.conditioning import CONCAT_CHANNELS, FIRST_FRAMES, Conditioning, replace_first_frames
from videodit.models.dit import DiT, DiTConfig
from videodit.models.text import TextConfig, TextEncoder
from videodit.nn.embed import token_grid
from videodit.nn.lora import LoRAConfig, adapt
from videodit.shapes import Patches, PerClip, Positions, Segments, Text, TextIds, TextMask, TextSegments, Video

Prediction = Literal["velocity", "data"]
MIN_TIME = 0.05  # below which a data prediction is read as a velocity at this time, where noise is not yet zero
EOS = 1  # T5's id of the end of a text; alone it is the empty caption


class TextToVideo(nnx.Module):
    """A transformer, and the encoder of the text that it attends to if that is trained along (`text` is not None).

    Args:
        lora: adapters, which are then all that is trained of the transformer.
        prediction: what the transformer's output is (`ObjectiveConfig.prediction`).
    """

    def __init__(
        self,
        dit: DiTConfig,
        text: TextConfig | None,
        lora: LoRAConfig | None = None,
        *,
        prediction: Prediction = "velocity",
        rngs: nnx.Rngs,
    ):
        self.prediction = prediction
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
        latents_BTYXC = x_BTYXC
        if FIRST_FRAMES in inputs:
            x_BTYXC = latents_BTYXC = replace_first_frames(x_BTYXC, inputs[FIRST_FRAMES])
            frames, height, width = token_grid(x_BTYXC.shape[1:4], self.dit.cfg.patch)
            noisy_T = jnp.arange(frames) >= inputs[FIRST_FRAMES].shape[1] // self.dit.cfg.patch[0]
            t = t_B[:, None] * jnp.repeat(noisy_T, height * width)
        if CONCAT_CHANNELS in inputs:
            x_BTYXC = jnp.concatenate([x_BTYXC, inputs[CONCAT_CHANNELS]], axis=-1)
        remaining = {name: x for name, x in inputs.items() if name not in (FIRST_FRAMES, CONCAT_CHANNELS)}
        output = self.dit(x_BTYXC, t, conditioning.with_inputs(remaining))
        return self._to_velocity(latents_BTYXC, output, t_B)

    def token_velocity(
        self,
        x_BLP: Patches,
        t_BL: Float[Array, "B L"],
        positions_BL3: Positions,
        text_BSE: Text,
        text_segments_BS: TextSegments,
        segments_BL: Segments,
    ) -> Patches:
        """Return the velocity of rows of tokens in which several clips are packed; arguments as `DiT.tokens`."""
        output = self.dit.tokens(x_BLP, t_BL, positions_BL3, text_BSE, text_segments_BS, segments_BL)
        return self._to_velocity(x_BLP, output, t_BL)

    def _to_velocity(self, x: Array, output: Array, t: Array) -> Array:
        if self.prediction == "velocity":
            return output
        t = jnp.expand_dims(jnp.maximum(t, MIN_TIME), tuple(range(t.ndim, x.ndim)))
        return (x - output) / t


def count_tokens(cfg: DiTConfig, latent_shape: tuple[int, int, int, int]) -> int:
    """Return the number of tokens of a clip whose latent has the shape (T, Y, X, C)."""
    return math.prod(token_grid(latent_shape[:3], cfg.patch))


def empty_captions(text_ids: TextIds) -> tuple[TextIds, TextMask]:
    """Return ids and mask of as many empty captions."""
    first = jnp.zeros_like(text_ids).at[:, 0].set(1)
    return EOS * first, first > 0
