"""The releases that can be imported: the networks of each, and the sampler that it is used with."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from videodit.provenance import JSON

PartName = Literal["transformer", "transformer_2", "vae", "text_encoder", "image_encoder"]


class Requirement(enum.Enum):
    """What a field of a `config.json` must satisfy, where a kind does not fix its value."""

    PRESENT = "a value"
    EQUALS_OUT_CHANNELS = "as many as out_channels"
    EXCEEDS_OUT_CHANNELS = "more than out_channels"


ExpectedFields = Mapping[str, JSON | Requirement]
"""Fields of a `config.json`, each with its value or with what the value must satisfy."""


@dataclass(frozen=True)
class ReleaseKind:
    """A release, or a single network of a release.

    Attributes:
        parts: its networks, and the fields that the `config.json` of each must have.
        clip: frames, height, width and frames per second of the clips that it was trained on.
        shift, guidance, steps: of its sampler, if the release has no scheduler configuration.
        expert_boundary: the time below which the second of two experts, the low-noise one, is used.
        low_noise_guidance: the guidance scale of the low-noise expert, `guidance` if None.
        first_frame: whether a clip may start with a conditioning frame in place of noise.
        licence: the licence that it was released under.
    """

    parts: Mapping[PartName, ExpectedFields]
    clip: tuple[int, int, int, float] = (81, 480, 832, 16.0)
    shift: float = 5.0
    guidance: float = 5.0
    steps: int = 50
    expert_boundary: float | None = None
    low_noise_guidance: float | None = None
    first_frame: bool = False
    licence: str = "Apache-2.0"

    @property
    def main(self) -> PartName:
        """The network that a folder of weights without sub-folders is read as."""
        return next(iter(self.parts))


def _wan_size(num_heads: int, mlp_width: int, depth: int) -> dict[str, JSON]:
    return {
        "num_attention_heads": num_heads,
        "attention_head_dim": 128,
        "ffn_dim": mlp_width,
        "num_layers": depth,
    }


TEXT = {"model_type": "umt5"}
XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
CLIP = {"model_type": "clip_vision_model"}
VIT_H = {"hidden_size": 1280, "num_hidden_layers": 32, "image_size": 224, "patch_size": 14}
VAE_21, VAE_22 = {"is_residual": False}, {"is_residual": True}
T2V = {"in_channels": Requirement.EQUALS_OUT_CHANNELS, "image_dim": None}
I2V = {"in_channels": Requirement.EXCEEDS_OUT_CHANNELS}
T2V_16, I2V_16 = T2V | {"in_channels": 16, "out_channels": 16}, {"in_channels": 36, "out_channels": 16}
ANY_IMAGE = {"image_dim": Requirement.PRESENT, "pos_embed_seq_len": None}
ANY_TWO_IMAGES = {"image_dim": Requirement.PRESENT, "pos_embed_seq_len": Requirement.PRESENT}
CLIP_IMAGE = {"image_dim": 1280, "pos_embed_seq_len": None}
TWO_CLIP_IMAGES = {"image_dim": 1280, "pos_embed_seq_len": 514}
WAN_1_3B, WAN_14B, WAN_5B = _wan_size(12, 8960, 30), _wan_size(40, 13824, 40), _wan_size(24, 14336, 30)
HD = (81, 720, 1280, 16.0)


def _pipeline(
    transformer: ExpectedFields, vae: ExpectedFields = VAE_21, *, experts: int = 1, image: bool = False
) -> dict[PartName, ExpectedFields]:
    parts: dict[PartName, ExpectedFields] = {"transformer": transformer}
    if experts == 2:
        parts["transformer_2"] = transformer
    parts |= {"vae": vae, "text_encoder": TEXT}
    return parts | {"image_encoder": CLIP} if image else parts


KINDS: dict[str, ReleaseKind] = {
    "wan2.1-t2v": ReleaseKind(_pipeline(T2V), shift=3.0),
    "wan2.1-t2v-1.3b": ReleaseKind(_pipeline(T2V_16 | WAN_1_3B), shift=3.0),
    "wan2.1-t2v-14b": ReleaseKind(_pipeline(T2V_16 | WAN_14B), HD),
    "wan2.1-i2v": ReleaseKind(_pipeline(I2V | ANY_IMAGE, image=True), shift=3.0),
    "wan2.1-i2v-14b": ReleaseKind(_pipeline(I2V_16 | WAN_14B | CLIP_IMAGE, image=True), shift=3.0),
    "wan2.1-flf2v": ReleaseKind(_pipeline(I2V | ANY_TWO_IMAGES, image=True), HD),
    "wan2.1-flf2v-14b": ReleaseKind(_pipeline(I2V_16 | WAN_14B | TWO_CLIP_IMAGES, image=True), HD),
    "wan2.2-t2v": ReleaseKind(_pipeline(T2V, experts=2), HD, expert_boundary=0.875),
    "wan2.2-t2v-a14b": ReleaseKind(
        _pipeline(T2V_16 | WAN_14B, experts=2),
        HD,
        12.0,
        guidance=4.0,
        steps=40,
        expert_boundary=0.875,
        low_noise_guidance=3.0,
    ),
    "wan2.2-i2v": ReleaseKind(_pipeline(I2V | {"image_dim": None}, experts=2), HD, expert_boundary=0.9),
    "wan2.2-i2v-a14b": ReleaseKind(
        _pipeline(I2V_16 | WAN_14B | {"image_dim": None}, experts=2),
        HD,
        guidance=3.5,
        steps=40,
        expert_boundary=0.9,
    ),
    "wan2.2-ti2v": ReleaseKind(_pipeline(T2V, VAE_22), (121, 704, 1280, 24.0), first_frame=True),
    "wan2.2-ti2v-5b": ReleaseKind(
        _pipeline(WAN_5B | {"in_channels": 48, "out_channels": 48, "image_dim": None}, VAE_22),
        (121, 704, 1280, 24.0),
        first_frame=True,
    ),
    "wan2.1-vae": ReleaseKind({"vae": VAE_21}),
    "wan2.2-vae": ReleaseKind({"vae": VAE_22}),
    "umt5": ReleaseKind({"text_encoder": TEXT}),
    "umt5-xxl": ReleaseKind({"text_encoder": TEXT | XXL | {"vocab_size": 256384}}),
    "t5-v1.1": ReleaseKind({"text_encoder": {"model_type": "t5"}}),
    "t5-v1.1-xxl": ReleaseKind({"text_encoder": {"model_type": "t5"} | XXL | {"vocab_size": 32128}}),
    "clip": ReleaseKind({"image_encoder": CLIP}),
    "clip-vit-h": ReleaseKind({"image_encoder": CLIP | VIT_H}, licence="MIT"),
}
"""By name. A kind without a size accepts any size, as the `config.json` of its files gives it."""
