"""T5 v1.1's text encoder, and UMT5's, which differs in its position biases (Raffel et al. 2020; Chung et al. 2023)."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, Int

from videodit.nn.attention import Attention
from videodit.nn.mlp import MLP
from videodit.nn.norm import RMSNorm
from videodit.nn.param import gather_param, param
from videodit.nn.stack import Remat, Stack
from videodit.parallel.rules import constrain
from videodit.ranges import Depth, Epsilon, Size, check_ranges
from videodit.shapes import TextIds, TextMask

_fan_in = initializers.variance_scaling(1.0, "fan_in", "normal")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Shape and options of a `TextEncoder`.

    Attributes:
        vocab_size: number of token ids.
        width, depth, num_heads, head_dim, mlp_width: the transformer's size; heads need not add up to the width.
        num_buckets: buckets of relative position, half of them for each direction.
        max_distance: distance from which on all positions share a bucket.
        shared_bias: one table of position biases for all layers (T5), or one for each (UMT5).
        eps: of every norm.
        remat: what the backward pass keeps rather than computes again (`nn.stack.rematerialize`).
        dtype: type of activations; parameters, norms and softmax are float32.
    """

    vocab_size: Size
    width: Size
    depth: Depth
    num_heads: Size
    head_dim: Size
    mlp_width: Size
    num_buckets: Size = 32
    max_distance: Size = 128
    shared_bias: bool = True
    eps: Epsilon = 1e-6
    remat: Remat = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        check_ranges(self)
        if self.num_buckets % 4:
            raise ValueError(f"num_buckets must be a multiple of 4, got {self.num_buckets}")
        if self.max_distance <= self.num_buckets // 4:
            raise ValueError(
                f"max_distance is {self.max_distance}: it must be above {self.num_buckets // 4}, the distances that "
                f"have buckets of their own among {self.num_buckets}"
            )


def position_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """Return the bucket of every (query, key) pair, int32 [length, length].

    Half of the buckets are for keys after the query. Of each half, the first half holds one distance each, the rest
    grows logarithmically up to `max_distance` (Raffel et al. 2020, section 2.1). Computed in float32, whose rounding
    checkpoints were trained with.
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = num_buckets // 2
    exact = half // 2
    distance = np.abs(offset)
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(np.log(max_distance / exact))
    far = np.minimum(exact + (ratio * (half - exact)).astype(np.int32), half - 1)
    return np.where(offset > 0, half, 0).astype(np.int32) + np.where(distance < exact, distance, far).astype(np.int32)


class PositionBias(nnx.Module):
    """A learned bias on attention logits for every bucket of relative position and head."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        shape = (cfg.num_buckets, cfg.num_heads)
        self.table = param(rngs.params(), initializers.normal(cfg.width**-0.5), shape, (None, "heads"))

    def __call__(self, buckets_SS: Int[Array, "S S"]) -> Float[Array, "N S S"]:
        return jnp.moveaxis(gather_param(self.table), -1, 0)[:, buckets_SS]


class TextBlock(nnx.Module):
    """Self-attention without scale and with position biases, then a gated MLP, each behind an RMS norm."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)
        self.attention = Attention(
            cfg.width,
            cfg.num_heads,
            cfg.head_dim,
            use_bias=False,
            scale=1.0,
            init=_fan_in,
            q_init=initializers.variance_scaling(1.0 / cfg.head_dim, "fan_in", "normal"),
            rngs=rngs,
        )
        self.bias = None if cfg.shared_bias else PositionBias(cfg, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)
        self.mlp = MLP(cfg.width, cfg.mlp_width, kind="gated", use_bias=False, init=_fan_in, rngs=rngs)

    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        mask_BS: TextMask,
        buckets_SS: Int[Array, "S S"],
        shared_bias_NSS: Float[Array, "N S S"] | None,
    ) -> Float[Array, "B S D"]:
        x_BSD = constrain(x_BSD, ("batch", "stream", None))
        bias_NSS = shared_bias_NSS if self.bias is None else self.bias(buckets_SS)
        y = self.attention_norm(x_BSD)
        x_BSD += self.attention(y, kv_segments=mask_BS.astype(jnp.int32), bias_NLS=bias_NSS)
        return x_BSD + self.mlp(self.mlp_norm(x_BSD))


class TextEncoder(nnx.Module):
    """T5 v1.1's encoder in layout, arithmetic and initialisation, so that its weights load."""

    def __init__(self, cfg: TextConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.embedding = param(rngs.params(), initializers.normal(1.0), (cfg.vocab_size, cfg.width), ("vocab", "embed"))
        self.bias = PositionBias(cfg, rngs=rngs) if cfg.shared_bias else None
        self.stack = Stack(lambda rngs: TextBlock(cfg, rngs=rngs), cfg.depth, remat=cfg.remat, rngs=rngs)
        self.norm = RMSNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs)

    def __call__(self, ids_BS: TextIds, mask_BS: TextMask) -> Float[Array, "B S E"]:
        """Encode token ids; `mask` says which are real. Outputs at the others are finite and undefined."""
        cfg = self.cfg
        buckets_SS = jnp.asarray(position_buckets(ids_BS.shape[1], cfg.num_buckets, cfg.max_distance))
        shared_bias_NSS = None if self.bias is None else self.bias(buckets_SS)
        x_BSD = gather_param(self.embedding, cfg.dtype)[ids_BS]
        return self.norm(self.stack(x_BSD, mask_BS, buckets_SS, shared_bias_NSS))
