"""What a velocity is conditioned on: text, frame rate, and further inputs by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from videodit.pytrees import register_arrays

ArrayT = TypeVar("ArrayT")

FIRST_FRAMES = "first_frames"
CONCAT_CHANNELS = "concat_channels"
IMAGE = "image"


@register_arrays
@dataclass(frozen=True)
class Conditioning(Generic[ArrayT]):
    """The conditioning of a batch of clips; every array has the batch first.

    Attributes:
        text: outputs of the text encoder.
        text_mask: which text tokens are real; a clip may have none.
        fps: frames per second of every clip; None is the model's `fps_reference`.
        inputs: further inputs by name. `first_frames` [B, t, Y, X, C] are the first latent frames, given instead of
            generated; `concat_channels` [B, T, Y, X, C] go with the noisy latents as further channels; `image`
            [B, I, E] are the tokens of an image encoder; others are those of the model's condition embedders.
    """

    text: Float[ArrayT, "B S E"]
    text_mask: Bool[ArrayT, "B S"]
    fps: Float[ArrayT, " B"] | None = None
    inputs: Mapping[str, Shaped[ArrayT, "B ..."]] = field(default_factory=dict)

    def with_inputs(self, inputs: Mapping[str, Shaped[ArrayT, "B ..."]]) -> "Conditioning[ArrayT]":
        """Return the same conditioning with these further inputs."""
        return replace(self, inputs=dict(inputs))


def replace_first_frames(
    x_BTYXC: Float[Array, "B T Y X C"], first_BTYXC: Float[Array, "B t Y X C"]
) -> Float[Array, "B T Y X C"]:
    """Return latents whose first frames are replaced by the given ones."""
    return jnp.concatenate([first_BTYXC, x_BTYXC[:, first_BTYXC.shape[1] :]], axis=1)
