"""CLIP's image encoder in transformers' layout (Radford et al. 2021)."""

from collections.abc import Mapping
from typing import get_args

from videodit.interop.layers import from_heads_rules, layer_norm_rules, linear_rules, to_heads_rules
from videodit.interop.mapping import Rule
from videodit.models.vision import Activation, VisionConfig
from videodit.provenance import JSON


def parse_config(fields: Mapping[str, JSON]) -> VisionConfig:
    """Return the encoder that a `config.json` of transformers' `CLIPVisionModel` describes.

    Raises:
        ValueError: for an activation that is not CLIP's, and for fewer than two blocks.
    """
    if fields["hidden_act"] not in get_args(Activation):
        choices = " or ".join(get_args(Activation))
        raise ValueError(
            f"hidden_act is {fields['hidden_act']!r} in the image encoder's config.json: CLIP's is {choices}"
        )
    if fields["num_hidden_layers"] < 2:
        raise ValueError(
            f"num_hidden_layers is {fields['num_hidden_layers']} in the image encoder's config.json: it must be at "
            "least 2"
        )
    return VisionConfig(
        image_size=fields["image_size"],
        patch=fields["patch_size"],
        width=fields["hidden_size"],
        depth=fields["num_hidden_layers"],
        num_heads=fields["num_attention_heads"],
        mlp_width=fields["intermediate_size"],
        activation=fields["hidden_act"],
        eps=fields["layer_norm_eps"],
    )


def export_config(cfg: VisionConfig) -> dict[str, JSON]:
    """Return the `config.json` of an exported encoder."""
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "image_size": cfg.image_size,
        "patch_size": cfg.patch,
        "num_channels": 3,
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.depth,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.mlp_width,
        "hidden_act": cfg.activation,
        "layer_norm_eps": cfg.eps,
    }


def build_rules(cfg: VisionConfig) -> list[Rule]:
    """Return how transformers' tensors map to the parameters of a `VisionEncoder`.

    Names are without the prefix `vision_model.`.
    """
    patch = {"y": cfg.patch, "x": cfg.patch}
    return [
        Rule("patch_embedding.kernel", "embeddings.patch_embedding.weight", "d c y x -> (y x c) d", patch),
        Rule("class_token", "embeddings.class_embedding", "d -> d"),
        Rule("positions", "embeddings.position_embedding.weight", "i d -> i d"),
        *layer_norm_rules("norm", "pre_layrnorm"),  # sic
        *_block(cfg, "stack.blocks", "encoder.layers.{}"),
        *_block(cfg, "last", f"encoder.layers.{cfg.depth - 1}"),
        *layer_norm_rules("out_norm", "post_layernorm"),
    ]


def _block(cfg: VisionConfig, ours: str, theirs: str) -> list[Rule]:
    attention = f"{theirs}.self_attn"
    return [
        *layer_norm_rules(f"{ours}.attention_norm", f"{theirs}.layer_norm1"),
        *(
            rule
            for part in "qkv"
            for rule in to_heads_rules(cfg, f"{ours}.attention.{part}", f"{attention}.{part}_proj")
        ),
        *from_heads_rules(cfg, f"{ours}.attention.out", f"{attention}.out_proj"),
        *layer_norm_rules(f"{ours}.mlp_norm", f"{theirs}.layer_norm2"),
        *linear_rules(f"{ours}.mlp.up", f"{theirs}.mlp.fc1"),
        *linear_rules(f"{ours}.mlp.out", f"{theirs}.mlp.fc2"),
    ]
