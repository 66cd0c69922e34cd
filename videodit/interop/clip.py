"""CLIP's image encoder in transformers' layout (Radford et al. 2021)."""

from collections.abc import Mapping
from typing import Any, get_args

from videodit.interop.layers import heads, linear, merged, norm
from videodit.interop.mapping import Rule
from videodit.models.vision import Activation, VisionConfig


def config(facts: Mapping[str, Any]) -> VisionConfig:
    """The encoder that a `config.json` of transformers' `CLIPVisionModel` describes.

    Raises:
        ValueError: for an activation that is not CLIP's, and for fewer blocks than two.
    """
    if facts["hidden_act"] not in get_args(Activation):
        known = " or ".join(get_args(Activation))
        raise ValueError(f"hidden_act is {facts['hidden_act']!r} in the image encoder's config.json: CLIP's is {known}")
    if facts["num_hidden_layers"] < 2:
        raise ValueError(
            f"num_hidden_layers is {facts['num_hidden_layers']} in the image encoder's config.json: it "
            "needs a block before its last one"
        )
    return VisionConfig(
        image_size=facts["image_size"],
        patch=facts["patch_size"],
        width=facts["hidden_size"],
        depth=facts["num_hidden_layers"],
        num_heads=facts["num_attention_heads"],
        mlp_width=facts["intermediate_size"],
        activation=facts["hidden_act"],
        eps=facts["layer_norm_eps"],
    )


def facts(cfg: VisionConfig) -> dict[str, Any]:
    """The way back: the `config.json` of an exported encoder."""
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


def rules(cfg: VisionConfig) -> list[Rule]:
    """How a `VisionEncoder` is made of transformers' tensors, without the prefix `vision_model.`."""
    side = {"y": cfg.patch, "x": cfg.patch}
    return [
        Rule("patch_embedding.kernel", "embeddings.patch_embedding.weight", "d c y x -> (y x c) d", side),
        Rule("class_token", "embeddings.class_embedding", "d -> d"),
        Rule("positions", "embeddings.position_embedding.weight", "i d -> i d"),
        *norm("norm", "pre_layrnorm"),  # so it is spelt there
        *_block(cfg, "stack.blocks", "encoder.layers.{}"),
        *_block(cfg, "last", f"encoder.layers.{cfg.depth - 1}"),
        *norm("out_norm", "post_layernorm"),
    ]


def _block(cfg: VisionConfig, ours: str, theirs: str) -> list[Rule]:
    attention = f"{theirs}.self_attn"
    return [
        *norm(f"{ours}.attention_norm", f"{theirs}.layer_norm1"),
        *(rule for part in "qkv" for rule in heads(cfg, f"{ours}.attention.{part}", f"{attention}.{part}_proj")),
        *merged(cfg, f"{ours}.attention.out", f"{attention}.out_proj"),
        *norm(f"{ours}.mlp_norm", f"{theirs}.layer_norm2"),
        *linear(f"{ours}.mlp.up", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}.mlp.out", f"{theirs}.mlp.fc2"),
    ]
