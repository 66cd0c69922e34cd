"""Wan's transformers, 2.1 and 2.2, in diffusers' layout and in the original one (arXiv:2503.20314)."""

import re
from collections.abc import Mapping

from videodit.interop.layers import (
    from_heads_rules,
    heads_norm_rule,
    layer_norm_rules,
    linear_rules,
    to_heads_rules,
)
from videodit.interop.mapping import Rule
from videodit.models.dit import DiTConfig
from videodit.nn.rope import paired_order
from videodit.provenance import JSON

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


def convert_original_fields(fields: Mapping[str, JSON], *, attends_image: bool) -> dict[str, JSON]:
    """Return the original `config.json` of a transformer with diffusers' fields.

    Args:
        attends_image: whether it attends to the tokens of images encoded by CLIP.
    """
    num_heads, kind = fields["num_heads"], fields.get("model_type")
    return COMMON | {
        "patch_size": fields.get("patch_size", COMMON["patch_size"]),
        "text_dim": fields.get("text_dim", COMMON["text_dim"]),
        "cross_attn_norm": fields.get("cross_attn_norm", True),
        "num_attention_heads": num_heads,
        "attention_head_dim": fields["dim"] // num_heads,
        "ffn_dim": fields["ffn_dim"],
        "num_layers": fields["num_layers"],
        "in_channels": fields["in_dim"],
        "out_channels": fields["out_dim"],
        "freq_dim": fields["freq_dim"],
        "eps": fields["eps"],
        "image_dim": 1280 if attends_image and kind in ("i2v", "flf2v") else None,
        "pos_embed_seq_len": 514 if kind == "flf2v" else None,
    }


def parse_config(fields: Mapping[str, JSON]) -> DiTConfig:
    """Return the transformer that a `config.json` of diffusers' `WanTransformer3DModel` describes.

    Raises:
        ValueError: for an option that is not Wan's.
    """
    fields = COMMON | fields
    if fields.get("qk_norm", QK_NORM) != QK_NORM:
        raise ValueError(f"qk_norm is {fields['qk_norm']!r} in the transformer's config.json: Wan's have {QK_NORM!r}")
    num_heads, head_dim = fields["num_attention_heads"], fields["attention_head_dim"]
    return DiTConfig(
        depth=fields["num_layers"],
        width=num_heads * head_dim,
        num_heads=num_heads,
        mlp_width=fields["ffn_dim"],
        in_channels=fields["in_channels"],
        out_channels=fields["out_channels"],
        patch=tuple(fields["patch_size"]),
        text_width=fields["text_dim"],
        attend_padding=True,
        image_width=fields.get("image_dim"),
        image_tokens=(fields.get("pos_embed_seq_len") or 0) if fields.get("image_dim") else 0,
        qk_norm="full",
        cross_attn_norm=fields.get("cross_attn_norm", True),
        time_freq_dim=fields["freq_dim"],
        eps=fields["eps"],
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
