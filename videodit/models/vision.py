"""CLIP's image encoder (Radford et al. 2021), a vision transformer with a norm before its blocks."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

from videodit.nn.attention import Attention
from videodit.nn.embed import patchify
from videodit.nn.linear import Linear
from videodit.nn.mlp import MLP
from videodit.nn.norm import LayerNorm
from videodit.nn.param import gather_param, param
from videodit.nn.stack import Stack
from videodit.ranges import Depth, Epsilon, Size, check_ranges

Activation = Literal["gelu", "quick_gelu"]


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Shape and options of a `VisionEncoder`; the defaults are ViT-H/14's.

    Attributes:
        image_size: side of the square images, pixels.
        patch: side of a patch, pixels.
        width, depth, num_heads, mlp_width: the transformer's size.
        activation: exact "gelu", or "quick_gelu", x sigmoid(1.702 x), of OpenAI's own weights.
        eps: of every norm.
        dtype: type of activations.
    """

    image_size: Size = 224
    patch: Size = 14
    width: Size = 1280
    depth: Depth = 32
    num_heads: Size = 16
    mlp_width: Size = 5120
    activation: Activation = "gelu"
    eps: Epsilon = 1e-5
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        check_ranges(self)
        if self.image_size % self.patch:
            raise ValueError(f"image_size {self.image_size} is not a multiple of the patch, {self.patch}")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} does not split into {self.num_heads} heads")

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def tokens(self) -> int:
        """Count the tokens of an image, the class token included."""
        return (self.image_size // self.patch) ** 2 + 1


class VisionBlock(nnx.Module):
    """Self-attention and an MLP, each behind a layer norm."""

    def __init__(self, cfg: VisionConfig, *, rngs: nnx.Rngs):
        self.attention_norm = LayerNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)
        self.attention = Attention(cfg.width, cfg.num_heads, cfg.head_dim, rngs=rngs)
        self.mlp_norm = LayerNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)
        self.mlp = MLP(cfg.width, cfg.mlp_width, activation=ACTIVATIONS[cfg.activation], rngs=rngs)

    def __call__(self, x_BID: Float[Array, "B I D"]) -> Float[Array, "B I D"]:
        x_BID += self.attention(self.attention_norm(x_BID))
        return x_BID + self.mlp(self.mlp_norm(x_BID))


class VisionEncoder(nnx.Module):
    """Encoder of images to tokens, a class token first."""

    def __init__(self, cfg: VisionConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        small = initializers.normal(0.02)
        features = {"patch": 3 * cfg.patch**2}
        self.patch_embedding = Linear(features, {"embed": cfg.width}, use_bias=False, init=small, rngs=rngs)
        self.class_token = param(rngs.params(), small, (cfg.width,), ("embed",))
        self.positions = param(rngs.params(), small, (cfg.tokens, cfg.width), (None, "embed"))
        self.norm = LayerNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)
        self.stack = Stack(lambda rngs: VisionBlock(cfg, rngs=rngs), cfg.depth - 1, remat="none", rngs=rngs)
        self.last = VisionBlock(cfg, rngs=rngs)
        self.out_norm = LayerNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)

    def penultimate(self, image_BYXC: Float[Array, "B Y X 3"]) -> Float[Array, "B I D"]:
        """Return the input of the last block: the tokens that Wan's image-to-video attends to.

        Args:
            image_BYXC: normalised pixels (`normalize`), of the configuration's size.
        """
        cfg = self.cfg
        side = cfg.patch
        patches_BLP = patchify(image_BYXC[:, None].astype(cfg.dtype), (1, side, side))
        x_BLD = self.patch_embedding(patches_BLP)
        first = jnp.broadcast_to(gather_param(self.class_token, cfg.dtype), (len(x_BLD), 1, cfg.width))
        x_BID = jnp.concatenate([first, x_BLD], axis=1) + gather_param(self.positions, cfg.dtype)
        return self.stack(self.norm(x_BID))

    def __call__(self, image_BYXC: Float[Array, "B Y X 3"]) -> tuple[Float[Array, "B I D"], Float[Array, "B D"]]:
        """Return all tokens after the last block, and the class token after a last norm."""
        x_BID = self.last(self.penultimate(image_BYXC))
        return x_BID, self.out_norm(x_BID[:, 0])


MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


def normalize(image_BYXC: Float[Array, "B Y X 3"]) -> Float[Array, "B Y X 3"]:
    """Normalize pixels in [-1, 1] as CLIP does: (x - mean) / std of pixels in [0, 1], with CLIP's statistics."""
    return (0.5 * (image_BYXC + 1) - jnp.asarray(MEAN)) / jnp.asarray(STD)
