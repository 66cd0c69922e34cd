"""T5 v1.1's and UMT5's encoders in transformers' layout (Raffel et al. 2020; Chung et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from videodit.config.schema import from_tree
from videodit.interop.layers import from_heads_rules, linear_rules, rms_norm_rule, to_heads_rules
from videodit.interop.mapping import Rule
from videodit.models.text import TextConfig
from videodit.provenance import JSON
from videodit.ranges import Depth, Epsilon, Size, check_ranges

TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""Names under which files may repeat a tensor, each with the name of the tensor that it repeats."""

SHARES_BIAS = {"t5": True, "umt5": False}  # whether layers share their position biases


@dataclass(frozen=True, kw_only=True)
class _Fields:
    """What is read of the `config.json` of transformers' T5 and UMT5; version 1 of T5 has no gate in its MLP."""

    model_type: Literal["t5", "umt5"]
    feed_forward_proj: Literal["gated-gelu"]
    dense_act_fn: Literal["gelu_new"] = "gelu_new"
    vocab_size: Size
    d_model: Size
    num_layers: Depth
    num_heads: Size
    d_kv: Size
    d_ff: Size
    relative_attention_num_buckets: Size
    relative_attention_max_distance: Size
    layer_norm_epsilon: Epsilon

    def __post_init__(self):
        check_ranges(self)
        buckets, distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets % 4 or distance <= buckets // 4:
            raise ValueError(
                f"relative_attention_num_buckets is {buckets} and relative_attention_max_distance {distance}: buckets "
                "must be a multiple of 4, and the distance above a quarter of them"
            )


def parse_config(fields: Mapping[str, JSON]) -> TextConfig:
    """Return the encoder that a `config.json` of transformers' T5 or UMT5 describes.

    Raises:
        ValueError: for another kind of model, for version 1 of T5, whose MLP has no gate, and for a field of a wrong
            type or out of range.
    """
    t5 = from_tree(_Fields, fields, ignore_unknown=True)
    return TextConfig(
        vocab_size=t5.vocab_size,
        width=t5.d_model,
        depth=t5.num_layers,
        num_heads=t5.num_heads,
        head_dim=t5.d_kv,
        mlp_width=t5.d_ff,
        num_buckets=t5.relative_attention_num_buckets,
        max_distance=t5.relative_attention_max_distance,
        shared_bias=SHARES_BIAS[t5.model_type],
        eps=t5.layer_norm_epsilon,
    )


def export_config(cfg: TextConfig) -> dict[str, JSON]:
    """Return the `config.json` of an exported encoder."""
    kind = {shared: name for name, shared in SHARES_BIAS.items()}[cfg.shared_bias]
    return {
        "architectures": ["T5EncoderModel" if kind == "t5" else "UMT5EncoderModel"],
        "model_type": kind,
        "vocab_size": cfg.vocab_size,
        "d_model": cfg.width,
        "d_kv": cfg.head_dim,
        "d_ff": cfg.mlp_width,
        "num_layers": cfg.depth,
        "num_heads": cfg.num_heads,
        "relative_attention_num_buckets": cfg.num_buckets,
        "relative_attention_max_distance": cfg.max_distance,
        "layer_norm_epsilon": cfg.eps,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def build_rules(cfg: TextConfig) -> list[Rule]:
    """Return how transformers' tensors map to the parameters of a `TextEncoder`."""
    ours, theirs = "stack.blocks", "encoder.block.{}.layer"
    attention = f"{theirs}.0.SelfAttention"
    bias = "relative_attention_bias.weight"
    shared = Rule("bias.table", f"encoder.block.0.layer.0.SelfAttention.{bias}", "b n -> b n")
    return [
        Rule("embedding", "shared.weight", "v d -> v d"),
        shared if cfg.shared_bias else Rule(f"{ours}.bias.table", f"{attention}.{bias}", "b n -> b n"),
        rms_norm_rule(f"{ours}.attention_norm", f"{theirs}.0.layer_norm"),
        *(
            rule
            for part in "qkv"
            for rule in to_heads_rules(cfg, f"{ours}.attention.{part}", f"{attention}.{part}", bias=False)
        ),
        *from_heads_rules(cfg, f"{ours}.attention.out", f"{attention}.o", bias=False),
        rms_norm_rule(f"{ours}.mlp_norm", f"{theirs}.1.layer_norm"),
        *linear_rules(f"{ours}.mlp.gate", f"{theirs}.1.DenseReluDense.wi_0", bias=False),
        *linear_rules(f"{ours}.mlp.up", f"{theirs}.1.DenseReluDense.wi_1", bias=False),
        *linear_rules(f"{ours}.mlp.out", f"{theirs}.1.DenseReluDense.wo", bias=False),
        rms_norm_rule("norm", "encoder.final_layer_norm"),
    ]
