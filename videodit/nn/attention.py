"""Multi-head attention: by the kernels on every device of a mesh, or written out where there is a bias."""

from typing import Literal, get_args

import einops
import jax
import jax.numpy as jnp
import videodit_kernels.attention as kernels
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Bool, Float, Int
from videodit_kernels.qknorm import norm_rope

from videodit.nn.linear import Linear
from videodit.nn.norm import RMSNorm
from videodit.nn.param import Init, gather_param
from videodit.nn.rope import apply_rope
from videodit.parallel.context import HEADS, mark_padding, self_attention
from videodit.parallel.rules import constrain, count_shards, map_per_device
from videodit.shapes import Heads, Tokens

QKNorm = Literal["head", "full", "none"]
Rope = tuple[Float[Array, "B L h"], Float[Array, "B L h"]]


def attention(
    q_BLNH: Float[Array, "B L N H"],
    k_BSNH: Float[Array, "B S N H"],
    v_BSNH: Float[Array, "B S N H"],
    *,
    q_segments: Int[Array, "B L"] | None = None,
    kv_segments: Int[Array, "B S"] | None = None,
    bias_NLS: Float[Array, "N L S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B L N H"]:
    """Compute `softmax(q k' scale + bias) v` within segments; the softmax is float32, the result has the type of `q`.

    Args:
        q_segments: segment of every query. A query attends to the keys of its own segment. None: all in segment 1.
        kv_segments: segment of every key, likewise; 0 is padding, which nothing attends to.
        bias_NLS: added to the logits, which are written out then: no kernel has one.
        scale: 1 / sqrt(H) by default.

    A query without any key of its segment gets zeros.
    """
    if bias_NLS is not None:
        return _attend_with_bias(q_BLNH, k_BSNH, v_BSNH, segment_mask(q_segments, kv_segments), bias_NLS, scale)
    if q_segments is not None or kv_segments is not None:
        q_segments = jnp.ones(q_BLNH.shape[:2], jnp.int32) if q_segments is None else q_segments
        kv_segments = jnp.ones(k_BSNH.shape[:2], jnp.int32) if kv_segments is None else kv_segments
        kv_segments = mark_padding(kv_segments)

    def attend(q, k, v, q_ids, kv_ids):
        return kernels.attention(q, k, v, segment_ids=None if q_ids is None else (q_ids, kv_ids), scale=scale)

    keys = ("batch", None, "heads", "head_dim")
    divided = map_per_device(attend, (HEADS, keys, keys, ("batch", "tokens"), ("batch", None)), HEADS)
    return divided(q_BLNH, k_BSNH, v_BSNH, q_segments, kv_segments)


def _attend_with_bias(
    q_BLNH: Heads,
    k_BSNH: Float[Array, "B S N H"],
    v_BSNH: Float[Array, "B S N H"],
    mask_B1LS: Bool[Array, "B 1 #L #S"] | None,
    bias_NLS: Float[Array, "N L S"],
    scale: float | None,
) -> Heads:
    scale = q_BLNH.shape[-1] ** -0.5 if scale is None else scale
    logits_BNLS = jnp.einsum("blnh,bsnh->bnls", q_BLNH * scale, k_BSNH, preferred_element_type=jnp.float32)
    logits_BNLS += bias_NLS
    if mask_B1LS is not None:
        logits_BNLS = jnp.where(mask_B1LS, logits_BNLS, jnp.finfo(jnp.float32).min)
    weights_BNLS = jax.nn.softmax(logits_BNLS, axis=-1).astype(v_BSNH.dtype)
    if mask_B1LS is not None:
        weights_BNLS = jnp.where(mask_B1LS, weights_BNLS, 0)
    return jnp.einsum("bnls,bsnh->blnh", weights_BNLS, v_BSNH)


def segment_mask(
    q_segments: Int[Array, "B L"] | None, kv_segments: Int[Array, "B S"] | None
) -> Bool[Array, "B 1 #L #S"] | None:
    """Return which keys a query may attend to, for all heads; None if every query may attend to every key."""
    if q_segments is None and kv_segments is None:
        return None
    q = jnp.ones((1, 1), jnp.int32) if q_segments is None else q_segments
    kv = jnp.ones((1, 1), jnp.int32) if kv_segments is None else kv_segments
    return (q[:, None, :, None] == kv[:, None, None, :]) & (kv != 0)[:, None, None, :]


class Attention(nnx.Module):
    """Multi-head attention with its projections, over the tokens themselves or over another sequence.

    Args:
        width: size of the tokens, in and out.
        num_heads: number of heads.
        head_dim: size of a head.
        qk_norm: RMS norm with a learned scale on queries and keys: "head" over each head, "full" over all heads
            together (as Wan does), or "none".
        use_bias: whether the projections have biases.
        image_kv: whether queries also attend to the tokens of an image, which have keys, values and a softmax of their
            own, and whose result is added (decoupled cross-attention, Ye et al. 2023); initially it adds zeros.
        scale: factor on the logits, 1 / sqrt(head_dim) by default.
        init, q_init, out_init: initialisers of the kernels, seen as matrices [inputs, outputs].

    Raises:
        ValueError: for an unknown `qk_norm`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        head_dim: int,
        *,
        qk_norm: QKNorm = "none",
        use_bias: bool = True,
        image_kv: bool = False,
        scale: float | None = None,
        eps: float = 1e-6,
        init: Init = initializers.glorot_uniform(),  # noqa: B008
        q_init: Init | None = None,
        out_init: Init | None = None,
        rngs: nnx.Rngs,
    ):
        if qk_norm not in get_args(QKNorm):
            raise ValueError(f"qk_norm is one of {', '.join(get_args(QKNorm))}, got {qk_norm!r}")
        self.qk_norm, self.scale = qk_norm, scale
        embed, heads = {"embed": width}, {"heads": num_heads, "head_dim": head_dim}
        self.q = Linear(embed, heads, use_bias=use_bias, init=q_init or init, rngs=rngs)
        self.k = Linear(embed, heads, use_bias=use_bias, init=init, rngs=rngs)
        self.v = Linear(embed, heads, use_bias=use_bias, init=init, rngs=rngs)
        self.out = Linear(heads, embed, use_bias=use_bias, init=out_init or init, rngs=rngs)
        norm = {
            "head": lambda: RMSNorm(head_dim, dim="head_dim", eps=eps, rngs=rngs),
            "full": lambda: RMSNorm(num_heads * head_dim, dim="heads", eps=eps, rngs=rngs),
            "none": lambda: None,
        }[qk_norm]
        self.q_norm, self.k_norm = norm(), norm()
        zeros = initializers.zeros
        self.beside_k = Linear(embed, heads, use_bias=use_bias, init=init, rngs=rngs) if image_kv else None
        self.beside_v = Linear(embed, heads, use_bias=use_bias, init=zeros, rngs=rngs) if image_kv else None
        self.beside_k_norm = norm() if image_kv else None

    def __call__(
        self,
        x_BLD: Tokens,
        kv_BSD: Float[Array, "B S D"] | None = None,
        *,
        rope: Rope | None = None,
        q_segments: Int[Array, "B L"] | None = None,
        kv_segments: Int[Array, "B S"] | None = None,
        bias_NLS: Float[Array, "N L S"] | None = None,
        mask: kernels.Mask | None = None,
        image_BID: Float[Array, "B I D"] | None = None,
    ) -> Tokens:
        """Attend from `x` to `kv`, or to itself; `rope` rotates queries and keys; the others are as in `attention`.

        Of self-attention, `q_segments` are those of the keys too where `kv_segments` is None, and `mask` says which
        tokens attend to which. `image` is the second
        sequence, and may be left out.
        """
        x_BLD = constrain(x_BLD, ("batch", "tokens", None))
        is_self_attention = kv_BSD is None
        kv_BSD = x_BLD if kv_BSD is None else kv_BSD
        q, k, v = self.q(x_BLD), self.k(kv_BSD), self.v(kv_BSD)
        q, k = self._norm_rope(self.q_norm, q, rope), self._norm_rope(self.k_norm, k, rope)
        if is_self_attention and bias_NLS is None and kv_segments is None:
            y_BLNH = self_attention(q, k, v, q_segments, mask=mask, scale=self.scale)
        else:
            assert mask is None, "masks are for self-attention within a clip"
            y_BLNH = attention(
                q, k, v, q_segments=q_segments, kv_segments=kv_segments, bias_NLS=bias_NLS, scale=self.scale
            )
        if image_BID is not None:
            k, v = self._norm_rope(self.beside_k_norm, self.beside_k(image_BID), None), self.beside_v(image_BID)
            y_BLNH += attention(q, k, v, q_segments=q_segments, scale=self.scale)
        return constrain(self.out(y_BLNH), ("batch", "stream", None))

    def _norm_rope(self, norm: RMSNorm | None, x_BLNH: Heads, rope: Rope | None) -> Heads:
        """Normalize queries or keys and apply RoPE, both at once by a kernel."""
        if norm is None:
            return x_BLNH if rope is None else apply_rope(x_BLNH, *rope)
        all_heads = self.qk_norm == "full"
        if rope is None:
            return self._normalize(norm, x_BLNH)
        if all_heads and count_shards("heads") > 1:  # the mean over all heads goes across devices
            return apply_rope(self._normalize(norm, x_BLNH), *rope)
        scale = gather_param(norm.scale)
        scale = scale.reshape(x_BLNH.shape[2:]) if all_heads else scale

        def apply(x, scale, cos, sin):
            return norm_rope(x, scale, cos, sin, eps=norm.eps)

        angles = ("batch", "tokens", None)
        return map_per_device(apply, (HEADS, (None,) * scale.ndim, angles, angles), HEADS)(x_BLNH, scale, *rope)

    def _normalize(self, norm: RMSNorm, x_BLNH: Heads) -> Heads:
        if self.qk_norm == "full":
            heads = x_BLNH.shape[-2]
            return einops.rearrange(
                norm(einops.rearrange(x_BLNH, "b l n h -> b l (n h)")), "b l (n h) -> b l n h", n=heads
            )
        return norm(x_BLNH)
