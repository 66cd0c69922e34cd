"""Wan's transformers, 2.1 and 2.2, in diffusers' layout and in the original one (arXiv:2503.20314)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from videodit.config.schema import from_tree
from videodit.interop.layers import (
    from_heads_rules,
    heads_norm_rule,
    layer_norm_rules,
    linear_rules,
    to_heads_rules,
)
from videodit.interop.mapping import Rule
from videodit.models.dit import DiTConfig
from videodit.nn.embed import Patch
from videodit.nn.rope import paired_order
from videodit.provenance import JSON
from videodit.ranges import Depth, Epsilon, Range, Size, check_ranges

# From the original names to diffusers', in this order.
RENAMES = (
    (r"^blocks\.(\d+)\.self_attn\.", r"blocks.\1.attn1."),
    (r"^blocks\.(\d+)\.cross_attn\.", r"blocks.\1.attn2."),
    (r"\.attn(\d)\.([qkv])\.", r".attn\1.to_\2."),
    (r"\.attn(\d)\.o\.", r".attn\1.to_out.0."),
    (r"\.attn2\.([kv])_img\.", r".attn2.add_\1_proj."),
    (r"\.attn2\.norm_k_img\.", r".attn2.norm_added_k."),
    (r"^blocks\.(\d+)\.norm3\.", r"blocks.\1.norm2."),
    (r"^blocks\.(\d+)\.ffn\.0\.", r"blocks.\1.ffn.net.0.proj."),
    (r"^blocks\.(\d+)\.ffn\.2\.", r"blocks.\1.ffn.net.2."),
    (r"^blocks\.(\d+)\.modulation$", r"blocks.\1.scale_shift_table"),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"^head\.head\.", "proj_out."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^img_emb\.emb_pos$", "condition_embedder.image_embedder.pos_embed"),
)


def rename_original(name: str) -> str:
    """Return diffusers' name of a tensor of the original layout; diffusers' names are returned unchanged."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


QK_NORM = "rms_norm_across_heads"
COMMON = {"patch_size": [1, 2, 2], "text_dim": 4096, "freq_dim": 256, "eps": 1e-6}
"""Fields that all releases share, for weights without a configuration."""


@dataclass(frozen=True, kw_only=True)
class _OriginalFields:
    """What is read of the original `config.json` of a transformer."""

    num_heads: Size
    dim: Size
    ffn_dim: Size
    num_layers: Depth
    in_dim: Size
    out_dim: Size
    freq_dim: Size
    eps: Epsilon
    patch_size: Annotated[Patch, Range(1, 1024)] = (1, 2, 2)
    text_dim: Size = 4096
    cross_attn_norm: bool = True
    model_type: str | None = None

    def __post_init__(self):
        check_ranges(self)
        if self.dim % (2 * self.num_heads):
            raise ValueError(f"dim is {self.dim}, which does not split into {self.num_heads} num_heads of an even size")


def convert_original_fields(fields: Mapping[str, JSON], *, attends_image: bool) -> dict[str, JSON]:
    """Return the original `config.json` of a transformer with diffusers' fields.

    Args:
        attends_image: whether it attends to the tokens of images encoded by CLIP.

    Raises:
        ValueError: for a field of a wrong type or out of range.
    """
    original = from_tree(_OriginalFields, fields, ignore_unknown=True)
    return COMMON | {
        "patch_size": list(original.patch_size),
        "text_dim": original.text_dim,
        "cross_attn_norm": original.cross_attn_norm,
        "num_attention_heads": original.num_heads,
        "attention_head_dim": original.dim // original.num_heads,
        "ffn_dim": original.ffn_dim,
        "num_layers": original.num_layers,
        "in_channels": original.in_dim,
        "out_channels": original.out_dim,
        "freq_dim": original.freq_dim,
        "eps": original.eps,
        "image_dim": 1280 if attends_image and original.model_type in ("i2v", "flf2v") else None,
        "pos_embed_seq_len": 514 if original.model_type == "flf2v" else None,
    }


@dataclass(frozen=True, kw_only=True)
class _Fields:
    """What is read of the `config.json` of diffusers' `WanTransformer3DModel`."""

    num_attention_heads: Size
    attention_head_dim: Size
    ffn_dim: Size
    num_layers: Depth
    in_channels: Size
    out_channels: Size | None
    patch_size: Annotated[Patch, Range(1, 1024)]
    text_dim: Size
    freq_dim: Size
    eps: Epsilon
    image_dim: Annotated[int, Range(0, 2**24)] | None = None
    pos_embed_seq_len: Annotated[int, Range(0, 2**24)] | None = None
    cross_attn_norm: bool = True
    qk_norm: Literal["rms_norm_across_heads"] = QK_NORM

    def __post_init__(self):
        check_ranges(self)
        if self.attention_head_dim % 2:
            raise ValueError(f"attention_head_dim is {self.attention_head_dim}: it must be even")


def parse_config(fields: Mapping[str, JSON]) -> DiTConfig:
    """Return the transformer that a `config.json` of diffusers' `WanTransformer3DModel` describes.

    Raises:
        ValueError: for an option that is not Wan's, and a field of a wrong type or out of range.
    """
    wan = from_tree(_Fields, COMMON | fields, ignore_unknown=True)
    return DiTConfig(
        depth=wan.num_layers,
        width=wan.num_attention_heads * wan.attention_head_dim,
        num_heads=wan.num_attention_heads,
        mlp_width=wan.ffn_dim,
        in_channels=wan.in_channels,
        out_channels=wan.out_channels,
        patch=wan.patch_size,
        text_width=wan.text_dim,
        attend_padding=True,
        image_width=wan.image_dim or None,
        image_tokens=(wan.pos_embed_seq_len or 0) if wan.image_dim else 0,
        qk_norm="full",
        cross_attn_norm=wan.cross_attn_norm,
        time_freq_dim=wan.freq_dim,
        eps=wan.eps,
    )


def export_config(cfg: DiTConfig) -> dict[str, JSON]:
    """Return the `config.json` of an exported transformer."""
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(cfg.patch),
        "num_attention_heads": cfg.num_heads,
        "attention_head_dim": cfg.head_dim,
        "in_channels": cfg.in_channels,
        "out_channels": cfg.out_channels or cfg.in_channels,
        "text_dim": cfg.text_width,
        "freq_dim": cfg.time_freq_dim,
        "ffn_dim": cfg.mlp_width,
        "num_layers": cfg.depth,
        "cross_attn_norm": cfg.cross_attn_norm,
        "qk_norm": QK_NORM,
        "eps": cfg.eps,
        "image_dim": cfg.image_width,
        "added_kv_proj_dim": cfg.width if cfg.image_width else None,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": cfg.image_tokens or None,
    }


def build_rules(cfg: DiTConfig) -> list[Rule]:
    """Return how diffusers' tensors map to the parameters of a `DiT` with Wan's options."""
    t, y, x = cfg.patch
    patch = {"t": t, "y": y, "x": x}
    embedder = "condition_embedder"
    rules = [
        Rule("patch_embedding.kernel", "patch_embedding.weight", "d c t y x -> (t y x c) d", patch),
        Rule("patch_embedding.bias", "patch_embedding.bias", "d -> d"),
        *linear_rules("time_embedding.up", f"{embedder}.time_embedder.linear_1"),
        *linear_rules("time_embedding.out", f"{embedder}.time_embedder.linear_2"),
        Rule("time_embedding.modulation.kernel", f"{embedder}.time_proj.weight", "(m o) i -> i m o", {"m": 6}),
        Rule("time_embedding.modulation.bias", f"{embedder}.time_proj.bias", "(m o) -> m o", {"m": 6}),
        *linear_rules("text_embedding.up", f"{embedder}.text_embedder.linear_1"),
        *linear_rules("text_embedding.out", f"{embedder}.text_embedder.linear_2"),
        *linear_rules("head.out", "proj_out"),
        Rule("head.modulation", "scale_shift_table", "a m d -> (a m) d", {"a": 1}),
        *_block(cfg),
    ]
    if cfg.image_width:
        theirs = f"{embedder}.image_embedder"
        rules += [
            *layer_norm_rules("image_embedding.norm", f"{theirs}.norm1"),
            *linear_rules("image_embedding.up", f"{theirs}.ff.net.0.proj"),
            *linear_rules("image_embedding.out", f"{theirs}.ff.net.2"),
            *layer_norm_rules("image_embedding.out_norm", f"{theirs}.norm2"),
        ]
    if cfg.image_tokens:
        rules.append(Rule("image_embedding.positions", f"{theirs}.pos_embed", "a i d -> (a i) d", {"a": 1}))
    return rules


def _block(cfg: DiTConfig) -> list[Rule]:
    ours, theirs = "stack.blocks", "blocks.{}"
    rules = [
        Rule(f"{ours}.modulation", f"{theirs}.scale_shift_table", "a m d -> (a m) d", {"a": 1}),
        *(layer_norm_rules(f"{ours}.cross_norm", f"{theirs}.norm2") if cfg.cross_attn_norm else ()),
        *linear_rules(f"{ours}.mlp.up", f"{theirs}.ffn.net.0.proj"),
        *linear_rules(f"{ours}.mlp.out", f"{theirs}.ffn.net.2"),
    ]
    # Wan applies RoPE to adjacent dimensions of queries and keys in self-attention, and none in cross-attention.
    for name, their_name, order in (
        ("attention", "attn1", paired_order(cfg.head_dim).tolist()),
        ("cross_attention", "attn2", None),
    ):
        a, b = f"{ours}.{name}", f"{theirs}.{their_name}"
        rules += [
            *to_heads_rules(cfg, f"{a}.q", f"{b}.to_q", order),
            *to_heads_rules(cfg, f"{a}.k", f"{b}.to_k", order),
            *to_heads_rules(cfg, f"{a}.v", f"{b}.to_v"),
            *from_heads_rules(cfg, f"{a}.out", f"{b}.to_out.0"),
            heads_norm_rule(cfg, f"{a}.q_norm", f"{b}.norm_q", order),
            heads_norm_rule(cfg, f"{a}.k_norm", f"{b}.norm_k", order),
        ]
    if cfg.image_width:
        a, b = f"{ours}.cross_attention.beside", f"{theirs}.attn2"
        rules += to_heads_rules(cfg, f"{a}_k", f"{b}.add_k_proj") + to_heads_rules(cfg, f"{a}_v", f"{b}.add_v_proj")
        rules.append(heads_norm_rule(cfg, f"{a}_k_norm", f"{b}.norm_added_k"))
    return rules
