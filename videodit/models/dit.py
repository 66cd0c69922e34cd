"""A diffusion transformer over spacetime patches, conditioned on text (Peebles and Xie 2023; Wan 2025)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, Int, Shaped
from videodit_kernels.attention import Padded
from videodit_kernels.attention.tiles import Grid

from videodit.models.condition_embedder import ConditionEmbedder, condition_names, find_embedders
from videodit.models.conditioning import IMAGE, Conditioning
from videodit.nn.attention import Attention, QKNorm, Rope, segment_mask
from videodit.nn.attention_spec import AttentionSpec, Mask, describe_packing_obstacle
from videodit.nn.embed import Patch, grid_positions, patchify, sinusoidal, token_grid, unpatchify
from videodit.nn.linear import Linear
from videodit.nn.mlp import MLP, MLPKind
from videodit.nn.norm import LayerNorm, adaptive_norm
from videodit.nn.param import gather_param, param
from videodit.nn.rope import Split, default_split, rope_tables
from videodit.nn.stack import Remat, Stack
from videodit.parallel.context import TokenSharding
from videodit.parallel.rules import constrain
from videodit.ranges import Depth, Epsilon, Positive, Range, Size, check_ranges
from videodit.shapes import Patches, PerClip, Positions, Segments, Text, TextSegments, Tokens, Video


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Shape and options of a `DiT`.

    Attributes:
        depth, width, num_heads, mlp_width: the transformer's size.
        mlp: "gelu", or "gated" (two input matrices of `mlp_width`).
        in_channels: channels of the input: the noisy latents, and conditioning channels if there are any.
        out_channels: channels of the velocity, `in_channels` if None.
        patch: latents a token covers along (t, y, x).
        text_width: size of the text encoder's output.
        attend_padding: whether the padding of a text is attended to, as zeros, which Wan learnt with.
        image_width: size of an image encoder's tokens, which blocks attend to as well as to the text; None for none.
        image_tokens: how many of them have a learned position embedding; 0 for none.
        conditions: further conditioning inputs: names of embedders, or NAME=MODULE:CLASS of your own
            (`models.condition_embedder`). What they cost is not counted.
        attention: which tokens of a clip attend to each other in self-attention; all by default.
        qk_norm: RMS norm of queries and keys over each "head", over all heads ("full") or "none".
        cross_attn_norm: whether an affine LayerNorm comes before cross-attention.
        pooled_text: whether the mean of the text tokens modulates the blocks along with time (Esser et al. 2024), a
            shorter way to them than cross-attention.
        time_freq_dim: size of the sinusoidal embedding of time.
        rope_theta, rope_split: rotary base, and a head's dimensions that rotate with (t, y, x); None is Wan's split.
        fps_reference: frames per second at which the temporal position of a frame is its index.
        remat: what the backward pass keeps rather than computes again (`nn.stack.rematerialize`).
        dtype: type of activations; parameters, norms, softmax and the residual additions are float32.
        eps: of every norm.
    """

    depth: Depth
    width: Size
    num_heads: Size
    mlp_width: Size
    mlp: MLPKind = "gelu"
    in_channels: Size = 16
    out_channels: Size | None = None
    patch: Annotated[Patch, Range(1, 1024)] = (1, 2, 2)
    text_width: Size = 4096
    attend_padding: bool = False
    image_width: Size | None = None
    image_tokens: Annotated[int, Range(0, 2**24)] = 0
    conditions: tuple[str, ...] = ()
    attention: AttentionSpec = dataclasses.field(default_factory=AttentionSpec)
    qk_norm: QKNorm = "head"
    cross_attn_norm: bool = False
    pooled_text: bool = False
    time_freq_dim: Size = 256
    rope_theta: Annotated[float, Range(1, 1e11)] = 10000.0
    rope_split: Annotated[Split, Range(0, 2**24)] | None = None
    fps_reference: Positive = 16.0
    remat: Remat = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    eps: Epsilon = 1e-6

    def __post_init__(self):
        check_ranges(self)
        if self.width % self.num_heads or self.head_dim % 2:
            raise ValueError(f"width {self.width} does not split into {self.num_heads} heads of an even size")
        condition_names(self.conditions)
        if self.time_freq_dim % 2:
            raise ValueError(f"time_freq_dim must be even, got {self.time_freq_dim}")
        if sum(self.split) != self.head_dim or any(n % 2 for n in self.split):
            raise ValueError(f"rope_split must be three even sizes that add up to {self.head_dim}, got {self.split}")

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def split(self) -> Split:
        return default_split(self.head_dim) if self.rope_split is None else self.rope_split

    @property
    def patch_features(self) -> int:
        return math.prod(self.patch) * self.in_channels

    @property
    def velocity_features(self) -> int:
        """Of a patch of the velocity."""
        return math.prod(self.patch) * (self.out_channels or self.in_channels)


SIZES: dict[str, DiTConfig] = {
    "toy": DiTConfig(depth=6, width=192, num_heads=4, mlp_width=768, text_width=128),
    "S": DiTConfig(depth=12, width=384, num_heads=6, mlp_width=1536),
    "B": DiTConfig(depth=12, width=768, num_heads=12, mlp_width=3072),
    "L": DiTConfig(depth=24, width=1024, num_heads=16, mlp_width=4096),
    "XL": DiTConfig(depth=28, width=1152, num_heads=16, mlp_width=4608),
    "1.3b": DiTConfig(depth=30, width=1536, num_heads=12, mlp_width=8960, qk_norm="full", cross_attn_norm=True),
    "14b": DiTConfig(depth=40, width=5120, num_heads=40, mlp_width=13824, qk_norm="full", cross_attn_norm=True),
}


class TimeEmbedding(nnx.Module):
    """Embedding of time in [0, 1], and the six modulations that all blocks share."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.freq_dim = cfg.time_freq_dim
        small = initializers.normal(0.02)
        self.up = Linear({"time_freq": cfg.time_freq_dim}, {"embed": cfg.width}, init=small, rngs=rngs)
        self.out = Linear({"embed": cfg.width}, {None: cfg.width}, init=small, rngs=rngs)
        self.modulation = Linear(
            {"embed": cfg.width}, {"modulation": 6, None: cfg.width}, init=initializers.zeros, rngs=rngs
        )

    def __call__(
        self, t_Bl: Float[Array, "B l"], pooled_BlD: Float[Array, "B #l2 D"] | None
    ) -> tuple[Float[Array, "B l3 D"], Float[Array, "B l3 6 D"]]:
        embedding = self.out(jax.nn.silu(self.up(sinusoidal(1000.0 * t_Bl, self.freq_dim))))
        if pooled_BlD is not None:
            embedding += pooled_BlD
        return embedding, self.modulation(jax.nn.silu(embedding))


class TextEmbedding(nnx.Module):
    """Two-layer map from the text encoder's output to the model's width."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.up = Linear({"text": cfg.text_width}, {"embed": cfg.width}, rngs=rngs)
        self.out = Linear({"embed": cfg.width}, {None: cfg.width}, rngs=rngs)

    def __call__(self, text_BSE: Text) -> Float[Array, "B S D"]:
        return self.out(jax.nn.gelu(self.up(text_BSE), approximate=True))


class ImageEmbedding(nnx.Module):
    """Map of an image encoder's tokens to the model's width: two layers between two norms, as in Wan."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        shape = cfg.image_tokens, cfg.image_width
        small = initializers.normal(0.02)
        self.positions = param(rngs.params(), small, shape, (None, "text")) if cfg.image_tokens else None
        self.norm = LayerNorm(cfg.image_width, dim=None, eps=1e-5, rngs=rngs)
        self.up = Linear({"text": cfg.image_width}, {None: cfg.image_width}, rngs=rngs)
        self.out = Linear({"text": cfg.image_width}, {None: cfg.width}, rngs=rngs)
        self.out_norm = LayerNorm(cfg.width, dim=None, eps=1e-5, rngs=rngs)

    def __call__(self, image_BIE: Float[Array, "B I E"]) -> Float[Array, "B I D"]:
        if self.positions is not None:
            image_BIE += gather_param(self.positions, image_BIE.dtype)
        return self.out_norm(self.out(jax.nn.gelu(self.up(self.norm(image_BIE)), approximate=False)))


def pool(text_BSD: Text, text_segments_BS: TextSegments, segments_BL: Segments | None) -> Float[Array, "B l D"]:
    """Return the mean in float32 of the text of each token's segment, of the first segment if `segments_BL` is None.

    Zeros where a segment has no text.
    """
    mask_BlS = segment_mask(segments_BL, text_segments_BS)[:, 0]
    total_BlD = jnp.einsum("bls,bsd->bld", mask_BlS.astype(jnp.float32), text_BSD.astype(jnp.float32))
    return total_BlD / jnp.maximum(mask_BlS.sum(-1, keepdims=True), 1)


class Block(nnx.Module):
    """Self-attention, cross-attention to text and an MLP; time modulates the first and the last (adaLN-Zero)."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.eps = cfg.eps
        zeros = initializers.zeros
        self.modulation = param(rngs.params(), zeros, (6, cfg.width), (None, "embed"))
        self.attention = Attention(cfg.width, cfg.num_heads, cfg.head_dim, qk_norm=cfg.qk_norm, eps=cfg.eps, rngs=rngs)
        self.cross_norm = LayerNorm(cfg.width, dim="embed", eps=cfg.eps, rngs=rngs) if cfg.cross_attn_norm else None
        self.cross_attention = Attention(
            cfg.width,
            cfg.num_heads,
            cfg.head_dim,
            qk_norm=cfg.qk_norm,
            eps=cfg.eps,
            image_kv=cfg.image_width is not None,
            out_init=zeros,
            rngs=rngs,
        )
        self.mlp = MLP(cfg.width, cfg.mlp_width, kind=cfg.mlp, rngs=rngs)

    def __call__(
        self,
        x_BLD: Tokens,
        time_Bl6D: Float[Array, "B #L 6 D"],
        text_BSD: Float[Array, "B S D"],
        rope: Rope,
        segments_BL: Segments | None,
        text_segments_BS: TextSegments,
        image_BID: Float[Array, "B I D"] | None = None,
        mask: Mask | None = None,
    ) -> Tokens:
        modulation = jnp.moveaxis(time_Bl6D + gather_param(self.modulation), -2, 0)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        _, y = adaptive_norm(x_BLD, scale, shift, eps=self.eps)
        y = self.attention(y, rope=rope, q_segments=segments_BL, mask=mask)
        x_BLD = (x_BLD + gate * y).astype(x_BLD.dtype)
        y = x_BLD if self.cross_norm is None else self.cross_norm(x_BLD)
        y = self.cross_attention(
            y,
            text_BSD,
            q_segments=segments_BL,
            kv_segments=text_segments_BS,
            image_BID=image_BID,
        )
        x_BLD, y = adaptive_norm(x_BLD, mlp_scale, mlp_shift, y, eps=self.eps)
        return (x_BLD + mlp_gate * self.mlp(y)).astype(x_BLD.dtype)


class Head(nnx.Module):
    """Modulated norm and the linear map to patches, which starts at zero."""

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.eps = cfg.eps
        zeros = initializers.zeros
        self.modulation = param(rngs.params(), zeros, (2, cfg.width), (None, "embed"))
        self.out = Linear({"embed": cfg.width}, {"patch": cfg.velocity_features}, init=zeros, rngs=rngs)

    def __call__(self, x_BLD: Tokens, time_BlD: Float[Array, "B #L D"]) -> Patches:
        shift, scale = jnp.moveaxis(time_BlD[..., None, :] + gather_param(self.modulation), -2, 0)
        _, y = adaptive_norm(x_BLD, scale, shift, eps=self.eps)
        return self.out(y).astype(jnp.float32)


class DiT(nnx.Module):
    """Diffusion transformer over noisy latents, given time and text.

    Its output is what the objective predicts (`ObjectiveConfig.prediction`): by default the velocity.

    At initialisation every block is the identity and the velocity is zero (adaLN-Zero, Peebles and Xie 2023). Time
    enters through one network for all blocks plus a table for each (Chen et al. 2023); positions are rotary over
    (t, y, x), so any size, length and frame rate, and several clips packed into one sequence, are one case.
    """

    def __init__(self, cfg: DiTConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.patch_embedding = Linear({"patch": cfg.patch_features}, {"embed": cfg.width}, rngs=rngs)
        self.time_embedding = TimeEmbedding(cfg, rngs=rngs)
        self.text_embedding = TextEmbedding(cfg, rngs=rngs)
        self.image_embedding = ImageEmbedding(cfg, rngs=rngs) if cfg.image_width else None
        self.stack = Stack(lambda rngs: Block(cfg, rngs=rngs), cfg.depth, remat=cfg.remat, rngs=rngs)
        self.head = Head(cfg, rngs=rngs)
        if cfg.conditions:
            embedders = find_embedders(cfg.conditions)
            self.conditions = nnx.Dict({name: each(cfg.width, rngs=rngs) for name, each in embedders.items()})

    def tokens(
        self,
        x_BLP: Patches,
        t: PerClip | Float[Array, "B L"],
        positions_BL3: Positions,
        text_BSE: Text,
        text_segments_BS: TextSegments,
        segments_BL: Segments | None = None,
        *,
        inputs: Mapping[str, Shaped[Array, "B ..."]] | None = None,
        grid: Grid | None = None,
    ) -> Float[Array, "B L P2"]:
        """Predict the output for sequences of tokens, in which several clips may be packed.

        Args:
            x_BLP: noisy patches, features in the order (t, y, x, channel).
            t: time in [0, 1], of every sequence or of every token; 0 is data, 1 is noise.
            positions_BL3: (t, y, x) of every token, in units of tokens.
            text_BSE: outputs of the text encoder.
            text_segments_BS: the segment whose tokens attend to a text token; 0 is padding.
            segments_BL: the clip that a token belongs to, from 1; 0 is padding. None: one clip per sequence, segment 1.
            inputs: further conditioning inputs by name, where sequences hold one clip: `image`, outputs of an image
                encoder [B, I, E], of models with an `image_width`; and those of `conditions`.
            grid: tokens of a clip along (t, y, x), in raster order, where sequences hold one clip; models whose
                attention is not full need it.

        Returns:
            float32 outputs; those of padding are undefined.

        Raises:
            ValueError: for an input that the model does not take, or one that it lacks; and for packed sequences where
                its attention is not full.
        """
        inputs = self._check_inputs(inputs or {})
        dtype, attention = jnp.dtype(self.cfg.dtype), self.cfg.attention
        if not attention.is_full and segments_BL is not None:
            raise ValueError(describe_packing_obstacle(attention))
        if not attention.is_full and grid is None:
            raise ValueError("tokens of a model whose attention is not full need the grid that they are of")
        tiles = None if attention.order is None else (grid, attention.order)
        sharding = TokenSharding.for_length(x_BLP.shape[1], packed=segments_BL is not None, tiles=tiles)
        if sharding.padded > sharding.length and segments_BL is None:
            segments_BL = jnp.ones(x_BLP.shape[:2], jnp.int32)
        segments_BL = None if segments_BL is None else sharding.shard_tokens(segments_BL)
        t_Bl = t[:, None] if t.ndim == 1 else sharding.shard_tokens(t)
        text_BSD = constrain(self.text_embedding(text_BSE.astype(dtype)), ("batch", None, None))
        pooled_BlD = pool(text_BSD, text_segments_BS, segments_BL) if self.cfg.pooled_text else None
        for name in self._conditions:
            pooled_BlD, text_BSD, text_segments_BS = self._add_condition(
                self.conditions[name], inputs[name], pooled_BlD, text_BSD, text_segments_BS
            )
        embedding_BlD, time_Bl6D = self.time_embedding(t_Bl, pooled_BlD)
        rope = rope_tables(sharding.shard_tokens(positions_BL3), self.cfg.split, self.cfg.rope_theta)
        x_BLD = self.patch_embedding(constrain(sharding.shard_tokens(x_BLP.astype(dtype)), ("batch", "stream", None)))
        image_BID = self.image_embedding(inputs[IMAGE].astype(dtype)) if IMAGE in inputs else None
        x_BLD = self.stack(
            x_BLD,
            time_Bl6D,
            text_BSD,
            rope,
            segments_BL,
            text_segments_BS,
            image_BID,
            pattern=() if attention.is_full else self._build_masks(grid, sharding),
        )
        v_BLP = constrain(self.head(x_BLD, embedding_BlD), ("batch", None, None))
        return sharding.gather_tokens(v_BLP)

    def _check_inputs(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the inputs; ValueError for one that the model does not take, or one that it lacks."""
        takes = {*self._conditions} | ({IMAGE} if self.image_embedding is not None else set())
        if unknown := sorted(inputs.keys() - takes):
            accepted = ", ".join(sorted(takes)) or "text"
            raise ValueError(f"the model takes no conditioning input '{unknown[0]}', only {accepted}")
        if lacking := sorted({*self._conditions} - inputs.keys()):
            raise ValueError(f"the model needs the conditioning input '{lacking[0]}'")
        return inputs

    @staticmethod
    def _add_condition(
        embedder: ConditionEmbedder,
        value: Shaped[Array, "B ..."],
        pooled_BlD: Float[Array, "B l D"] | None,
        text_BSD: Float[Array, "B S D"],
        text_segments_BS: TextSegments,
    ) -> tuple[Float[Array, "B l D"] | None, Float[Array, "B S2 D"], Int[Array, "B S2"]]:
        """Add what an embedder makes of its input to the vectors beside time, and to the tokens of the text."""
        vector_BD, tokens_BID = embedder.embed_global(value), embedder.embed_tokens(value)
        if vector_BD is not None:
            vector_B1D = vector_BD.astype(jnp.float32)[:, None]
            pooled_BlD = vector_B1D if pooled_BlD is None else pooled_BlD + vector_B1D
        if tokens_BID is not None:
            text_BSD = jnp.concatenate([text_BSD, tokens_BID.astype(text_BSD.dtype)], axis=1)
            first = jnp.ones(tokens_BID.shape[:2], text_segments_BS.dtype)
            text_segments_BS = jnp.concatenate([text_segments_BS, first], axis=1)
        return pooled_BlD, text_BSD, text_segments_BS

    @property
    def _conditions(self) -> tuple[str, ...]:
        return condition_names(self.cfg.conditions)

    def _build_masks(self, grid: Grid, sharding: TokenSharding) -> tuple[Mask | None, ...]:
        """Build the masks of consecutive blocks, for tokens as devices hold them."""
        masks = self.cfg.attention.build_masks(grid)
        if sharding.padded == sharding.length:
            return masks
        return tuple(None if mask is None else Padded(mask, sharding.length) for mask in masks)

    def __call__(
        self,
        x_BTYXC: Video,
        t: PerClip | Float[Array, "B L"],
        conditioning: Conditioning,
    ) -> Float[Array, "B T Y X C2"]:
        """Predict the output for noisy clips of latents, one clip per sequence.

        Args:
            x_BTYXC: noisy latents, followed by conditioning channels if the model has such.
            t: time in [0, 1] of every clip, or of every token in raster order; 0 is data, 1 is noise.
            conditioning: text, frame rate, and the inputs that `tokens` takes.

        Raises:
            ValueError: when a side of the latents is not a multiple of the patch, and as `tokens`.
        """
        cfg, fps_B = self.cfg, conditioning.fps
        text_BSE, text_mask_BS = conditioning.text, conditioning.text_mask
        grid = token_grid(x_BTYXC.shape[1:4], cfg.patch)
        time_step_B = jnp.ones(len(t)) if fps_B is None else cfg.fps_reference / fps_B
        if cfg.attend_padding:
            text_BSE = jnp.where(text_mask_BS[..., None], text_BSE, 0)
            text_mask_BS = jnp.ones_like(text_mask_BS)
        v_BLP = self.tokens(
            patchify(x_BTYXC, cfg.patch),
            t,
            grid_positions(grid, time_step_B),
            text_BSE,
            text_mask_BS.astype(jnp.int32),
            inputs=conditioning.inputs,
            grid=grid,
        )
        return unpatchify(v_BLP, grid, cfg.patch)
