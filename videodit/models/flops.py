"""Cost of a model: parameters and multiply-accumulates, counted from its configuration."""

import dataclasses
import functools
import math

from videodit_kernels.attention.tiles import Grid

from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig


@dataclasses.dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-accumulates (MACs) of matrix products in one forward pass over one sample.

    Elementwise work (norms, softmax, rotations, biases) is not counted: it is bound by memory, not by arithmetic.
    """

    params: int = 0
    macs: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs)

    def __rmul__(self, copies: int) -> "Cost":
        return Cost(copies * self.params, copies * self.macs)

    @property
    def forward_flops(self) -> int:
        """Return two floating-point operations per MAC."""
        return 2 * self.macs

    @property
    def train_flops(self) -> int:
        """Return forward and backward: every product has two in its gradient. Rematerialization does not count."""
        return 3 * self.forward_flops


def _linear(inputs: int, outputs: int, uses: int, bias: bool = True) -> Cost:
    """Count a linear layer applied to `uses` vectors."""
    return Cost(inputs * outputs + bias * outputs, inputs * outputs * uses)


def _attention(width: int, inner: int, queries: int, keys: int, bias: bool = True) -> Cost:
    """Count the projections of an attention layer, and its two products."""
    projections = 2 * _linear(width, inner, keys, bias) + _linear(width, inner, queries, bias)
    return projections + _linear(inner, width, queries, bias) + Cost(macs=2 * queries * keys * inner)


@functools.lru_cache  # a search for meshes repeats the same thousands of times
def dit_cost(cfg: DiTConfig, tokens: int, text_tokens: int, image_tokens: int = 0, *, grid: Grid | None = None) -> Cost:
    """Count a `DiT` on one clip of so many tokens, with one time for the clip.

    Of self-attention, the pairs that attend to each other are counted; where that is not all, `grid` has to say how
    many tokens a clip has along (t, y, x).
    """
    width = cfg.width
    qk_scales = Cost(params={"head": 2 * cfg.head_dim, "full": 2 * width, "none": 0}[cfg.qk_norm])
    block = (
        _attention(width, width, tokens, tokens)
        + _attention(width, width, tokens, text_tokens)
        + 2 * qk_scales
        + Cost(params=2 * width * cfg.cross_attn_norm)
        + (2 if cfg.mlp == "gated" else 1) * _linear(width, cfg.mlp_width, tokens)
        + _linear(cfg.mlp_width, width, tokens)
        + Cost(params=6 * width)
    )
    time = _linear(cfg.time_freq_dim, width, 1) + _linear(width, width, 1) + _linear(width, 6 * width, 1)
    text = _linear(cfg.text_width, width, text_tokens) + _linear(width, width, text_tokens)
    text += Cost(macs=cfg.pooled_text * width * text_tokens)
    head = Cost(params=2 * width) + _linear(width, cfg.velocity_features, tokens)
    if cfg.image_width is not None:
        size = cfg.image_width
        text += _linear(size, size, image_tokens) + _linear(size, width, image_tokens)
        text += Cost(params=2 * size + 2 * width + cfg.image_tokens * size)
        block += 2 * _linear(width, width, image_tokens) + Cost(
            qk_scales.params // 2, 2 * tokens * image_tokens * width
        )
    masked = Cost(macs=2 * width * (count_attended_pairs(cfg, tokens, grid) - cfg.depth * tokens**2))
    return _linear(cfg.patch_features, width, tokens) + time + text + cfg.depth * block + masked + head


def count_attended_pairs(cfg: DiTConfig, tokens: int, grid: Grid | None = None) -> int:
    """Count the pairs of a clip's tokens that attend to each other, summed over blocks.

    Raises:
        ValueError: where attention is not full, and the grid is missing or has another number of tokens.
    """
    if cfg.attention.is_full:
        return cfg.depth * tokens**2
    if grid is None or math.prod(grid) != tokens:
        raise ValueError(f"which of {tokens} tokens attend to each other depends on their grid, got {grid}")
    return cfg.attention.count_pairs(grid, cfg.depth)


def adapted_train_flops(
    cfg: DiTConfig, tokens: int, text_tokens: int, adapters: int, *, grid: Grid | None = None
) -> int:
    """Count FLOPs of training adapters of so many parameters on one clip, all else of a `DiT` frozen.

    The forward pass, and of the backward pass what leads to the adapters: through the blocks and the head, but not to
    the weights of those, the text or the patches.
    """
    width, head = cfg.width, cfg.velocity_features
    products = 2 * (count_attended_pairs(cfg, tokens, grid) + cfg.depth * tokens * text_tokens) * width
    linear = 6 * width**2 + (3 if cfg.mlp == "gated" else 2) * width * cfg.mlp_width
    through = cfg.depth * tokens * linear + 2 * products + tokens * width * head
    return 2 * (dit_cost(cfg, tokens, text_tokens, grid=grid).macs + through + 3 * tokens * adapters)


@functools.lru_cache
def text_cost(cfg: TextConfig, tokens: int) -> Cost:
    """Count a `TextEncoder` on one text of so many tokens, padding included."""
    bias_table = Cost(params=cfg.num_buckets * cfg.num_heads)
    block = (
        _attention(cfg.width, cfg.num_heads * cfg.head_dim, tokens, tokens, bias=False)
        + 2 * _linear(cfg.width, cfg.mlp_width, tokens, bias=False)
        + _linear(cfg.mlp_width, cfg.width, tokens, bias=False)
        + Cost(params=2 * cfg.width)
    )
    tables = bias_table if cfg.shared_bias else cfg.depth * bias_table
    return Cost(params=(cfg.vocab_size + 1) * cfg.width) + cfg.depth * block + tables
