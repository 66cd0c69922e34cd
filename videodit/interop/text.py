"""T5 v1.1's and UMT5's encoders in transformers' layout (Raffel et al. 2020; Chung et al. 2023)."""

from collections.abc import Mapping
from typing import Any

from videodit.interop.layers import heads, linear, merged, scale
from videodit.interop.mapping import Rule
from videodit.models.text import TextConfig

TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""Names under which files may hold a tensor again: the name, and that of the tensor that it has to be."""

KINDS = {"t5": True, "umt5": False}  # whether layers share their position biases


def config(facts: Mapping[str, Any]) -> TextConfig:
    """The encoder that a `config.json` of transformers' T5 or UMT5 describes.

    Raises:
        ValueError: for another kind of model, and for T5 of the first version, whose MLP has no gate.
    """
    kind = facts.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"model_type is {kind!r} in the text encoder's config.json: it should be t5 or umt5")
    if facts.get("feed_forward_proj") != "gated-gelu":
        raise ValueError(
            f"feed_forward_proj is {facts.get('feed_forward_proj')!r} in the text encoder's config.json: version 1.1 "
            "has 'gated-gelu'"
        )
    if facts.get("dense_act_fn", "gelu_new") != "gelu_new":
        raise ValueError(
            f"dense_act_fn is {facts['dense_act_fn']!r} in the text encoder's config.json: version 1.1 has 'gelu_new'"
        )
    return TextConfig(
        vocab_size=facts["vocab_size"],
        width=facts["d_model"],
        depth=facts["num_layers"],
        num_heads=facts["num_heads"],
        head_dim=facts["d_kv"],
        mlp_width=facts["d_ff"],
        num_buckets=facts["relative_attention_num_buckets"],
        max_distance=facts["relative_attention_max_distance"],
        shared_bias=KINDS[kind],
        eps=facts["layer_norm_epsilon"],
    )


def facts(cfg: TextConfig) -> dict[str, Any]:
    """The way back: the `config.json` of an exported encoder."""
    kind = {shared: name for name, shared in KINDS.items()}[cfg.shared_bias]
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


def rules(cfg: TextConfig) -> list[Rule]:
    """How a `TextEncoder` is made of transformers' tensors."""
    ours, theirs = "stack.blocks", "encoder.block.{}.layer"
    attention = f"{theirs}.0.SelfAttention"
    bias = "relative_attention_bias.weight"
    shared = Rule("bias.table", f"encoder.block.0.layer.0.SelfAttention.{bias}", "b n -> b n")
    return [
        Rule("embedding", "shared.weight", "v d -> v d"),
        shared if cfg.shared_bias else Rule(f"{ours}.bias.table", f"{attention}.{bias}", "b n -> b n"),
        scale(f"{ours}.attention_norm", f"{theirs}.0.layer_norm"),
        *(rule for part in "qkv" for rule in heads(cfg, f"{ours}.attention.{part}", f"{attention}.{part}", bias=False)),
        *merged(cfg, f"{ours}.attention.out", f"{attention}.o", bias=False),
        scale(f"{ours}.mlp_norm", f"{theirs}.1.layer_norm"),
        *linear(f"{ours}.mlp.gate", f"{theirs}.1.DenseReluDense.wi_0", bias=False),
        *linear(f"{ours}.mlp.up", f"{theirs}.1.DenseReluDense.wi_1", bias=False),
        *linear(f"{ours}.mlp.out", f"{theirs}.1.DenseReluDense.wo", bias=False),
        scale("norm", "encoder.final_layer_norm"),
    ]
