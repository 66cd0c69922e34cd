"""Wan's transformers, 2.1 and 2.2, in diffusers' layout and in the original one (arXiv:2503.20314)."""

import re
from collections.abc import Mapping
from typing import Any

from videodit.interop.layers import heads, heads_scale, linear, merged, norm
from videodit.interop.mapping import Rule
from videodit.models.dit import DiTConfig
from videodit.nn.rope import paired_order

# From the original names to diffusers', in this order.
ORIGINAL = (
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


def renamed(name: str) -> str:
    """A name of the original layout as diffusers has it; diffusers' own stay as they are."""
    for pattern, replacement in ORIGINAL:
        name = re.sub(pattern, replacement, name)
    return name


QK_NORM = "rms_norm_across_heads"
COMMON = {"patch_size": [1, 2, 2], "text_dim": 4096, "freq_dim": 256, "eps": 1e-6}
"""What all releases have in common, for weights that come without a configuration."""


def from_original(facts: Mapping[str, Any], *, sees: bool) -> dict[str, Any]:
    """The original `config.json` of a transformer as diffusers would have it. `sees`: images through CLIP."""
    heads, kind = facts["num_heads"], facts.get("model_type")
    return COMMON | {
        "patch_size": facts.get("patch_size", COMMON["patch_size"]),
        "text_dim": facts.get("text_dim", COMMON["text_dim"]),
        "cross_attn_norm": facts.get("cross_attn_norm", True),
        "num_attention_heads": heads,
        "attention_head_dim": facts["dim"] // heads,
        "ffn_dim": facts["ffn_dim"],
        "num_layers": facts["num_layers"],
        "in_channels": facts["in_dim"],
        "out_channels": facts["out_dim"],
        "freq_dim": facts["freq_dim"],
        "eps": facts["eps"],
        "image_dim": 1280 if sees and kind in ("i2v", "flf2v") else None,
        "pos_embed_seq_len": 514 if kind == "flf2v" else None,
    }


def config(facts: Mapping[str, Any]) -> DiTConfig:
    """The transformer that a `config.json` of diffusers' `WanTransformer3DModel` describes.

    Raises:
        ValueError: for an option that is not Wan's.
    """
    facts = COMMON | facts
    if facts.get("qk_norm", QK_NORM) != QK_NORM:
        raise ValueError(f"qk_norm is {facts['qk_norm']!r} in the transformer's config.json: Wan's have {QK_NORM!r}")
    heads, size = facts["num_attention_heads"], facts["attention_head_dim"]
    return DiTConfig(
        depth=facts["num_layers"],
        width=heads * size,
        num_heads=heads,
        mlp_width=facts["ffn_dim"],
        in_channels=facts["in_channels"],
        out_channels=facts["out_channels"],
        patch=tuple(facts["patch_size"]),
        text_width=facts["text_dim"],
        attend_padding=True,
        image_width=facts.get("image_dim"),
        image_tokens=(facts.get("pos_embed_seq_len") or 0) if facts.get("image_dim") else 0,
        qk_norm="full",
        cross_attn_norm=facts.get("cross_attn_norm", True),
        time_freq_dim=facts["freq_dim"],
        eps=facts["eps"],
    )


def facts(cfg: DiTConfig) -> dict[str, Any]:
    """The way back: the `config.json` of an exported transformer."""
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


def rules(cfg: DiTConfig) -> list[Rule]:
    """How a `DiT` of Wan's options is made of diffusers' tensors."""
    t, y, x = cfg.patch
    patch = {"t": t, "y": y, "x": x}
    embedder = "condition_embedder"
    made = [
        Rule("patch_embedding.kernel", "patch_embedding.weight", "d c t y x -> (t y x c) d", patch),
        Rule("patch_embedding.bias", "patch_embedding.bias", "d -> d"),
        *linear("time_embedding.up", f"{embedder}.time_embedder.linear_1"),
        *linear("time_embedding.out", f"{embedder}.time_embedder.linear_2"),
        Rule("time_embedding.modulation.kernel", f"{embedder}.time_proj.weight", "(m o) i -> i m o", {"m": 6}),
        Rule("time_embedding.modulation.bias", f"{embedder}.time_proj.bias", "(m o) -> m o", {"m": 6}),
        *linear("text_embedding.up", f"{embedder}.text_embedder.linear_1"),
        *linear("text_embedding.out", f"{embedder}.text_embedder.linear_2"),
        *linear("head.out", "proj_out"),
        Rule("head.modulation", "scale_shift_table", "a m d -> (a m) d", {"a": 1}),
        *_block(cfg),
    ]
    if cfg.image_width:
        theirs = f"{embedder}.image_embedder"
        made += [
            *norm("image_embedding.norm", f"{theirs}.norm1"),
            *linear("image_embedding.up", f"{theirs}.ff.net.0.proj"),
            *linear("image_embedding.out", f"{theirs}.ff.net.2"),
            *norm("image_embedding.out_norm", f"{theirs}.norm2"),
        ]
    if cfg.image_tokens:
        made.append(Rule("image_embedding.positions", f"{theirs}.pos_embed", "a i d -> (a i) d", {"a": 1}))
    return made


def _block(cfg: DiTConfig) -> list[Rule]:
    ours, theirs = "stack.blocks", "blocks.{}"
    made = [
        Rule(f"{ours}.modulation", f"{theirs}.scale_shift_table", "a m d -> (a m) d", {"a": 1}),
        *(norm(f"{ours}.cross_norm", f"{theirs}.norm2") if cfg.cross_attn_norm else ()),
        *linear(f"{ours}.mlp.up", f"{theirs}.ffn.net.0.proj"),
        *linear(f"{ours}.mlp.out", f"{theirs}.ffn.net.2"),
    ]
    # Wan rotates neighbouring dimensions of queries and keys in self-attention, and none in cross-attention.
    for name, their_name, order in (
        ("attention", "attn1", paired_order(cfg.head_dim).tolist()),
        ("cross_attention", "attn2", None),
    ):
        a, b = f"{ours}.{name}", f"{theirs}.{their_name}"
        made += [
            *heads(cfg, f"{a}.q", f"{b}.to_q", order),
            *heads(cfg, f"{a}.k", f"{b}.to_k", order),
            *heads(cfg, f"{a}.v", f"{b}.to_v"),
            *merged(cfg, f"{a}.out", f"{b}.to_out.0"),
            heads_scale(cfg, f"{a}.q_norm", f"{b}.norm_q", order),
            heads_scale(cfg, f"{a}.k_norm", f"{b}.norm_k", order),
        ]
    if cfg.image_width:
        a, b = f"{ours}.cross_attention.beside", f"{theirs}.attn2"
        made += heads(cfg, f"{a}_k", f"{b}.add_k_proj") + heads(cfg, f"{a}_v", f"{b}.add_v_proj")
        made.append(heads_scale(cfg, f"{a}_k_norm", f"{b}.norm_added_k"))
    return made
