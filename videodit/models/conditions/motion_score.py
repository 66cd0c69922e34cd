"""How much a clip moves: one number, which tells the model how lively a clip to make."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

from videodit.models.condition_embedder import CONDITION_EMBEDDERS, ConditionEmbedder
from videodit.nn.embed import sinusoidal
from videodit.nn.linear import Linear

FREQUENCIES = 64


@CONDITION_EMBEDDERS.register("motion_score")
class MotionScoreEmbedder(ConditionEmbedder):
    """Embeds the mean absolute difference of neighboring frames, in units of what the model was trained on.

    Those are pixels in [0, 1], or the values of latents where its data sets hold latents.
    """

    shape = ()

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.up = Linear({"time_freq": FREQUENCIES}, {"embed": width}, rngs=rngs)
        self.out = Linear({"embed": width}, {None: width}, init=initializers.zeros, rngs=rngs)

    def embed_global(self, value: Float[Array, "B"]) -> Float[Array, "B D"]:
        return self.out(jax.nn.silu(self.up(sinusoidal(1000.0 * value.astype(jnp.float32), FREQUENCIES))))
