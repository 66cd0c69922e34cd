"""CLIP's image encoder in transformers' layout (Radford et al. 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from videodit.config.schema import from_tree
from videodit.interop.layers import from_heads_rules, layer_norm_rules, linear_rules, to_heads_rules
from videodit.interop.mapping import Rule
from videodit.models.vision import Activation, VisionConfig
from videodit.provenance import JSON
from videodit.ranges import Epsilon, Range, Size, check_ranges


@dataclass(frozen=True, kw_only=True)
class _Fields:
    """What is read of the `config.json` of transformers' `CLIPVisionModel`; the last of its blocks is not used."""

    hidden_act: Activation
    num_hidden_layers: Annotated[int, Range(2, 10_000)]
    image_size: Size
    patch_size: Size
    hidden_size: Size
    num_attention_heads: Size
    intermediate_size: Size
    layer_norm_eps: Epsilon

    def __post_init__(self):
        check_ranges(self)
        for whole, part in (("image_size", "patch_size"), ("hidden_size", "num_attention_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} is {getattr(self, whole)}: it must be a multiple of {part}, {getattr(self, part)}"
                )


def parse_config(fields: Mapping[str, JSON]) -> VisionConfig:
    """Return the encoder that a `config.json` of transformers' `CLIPVisionModel` describes.

    Raises:
        ValueError: for an activation that is not CLIP's, for fewer than two blocks, and for a field of a wrong type or
            out of range.
    """
    vision = from_tree(_Fields, fields, ignore_unknown=True)
    return VisionConfig(
        image_size=vision.image_size,
        patch=vision.patch_size,
        width=vision.hidden_size,
        depth=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        activation=vision.hidden_act,
        eps=vision.layer_norm_eps,
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
