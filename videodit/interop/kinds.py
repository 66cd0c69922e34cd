"""The releases that can be opened: what each is made of, and how it is sampled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PartName = Literal["transformer", "transformer_2", "vae", "text_encoder", "image_encoder"]


AS_MANY, MORE = "as many as out_channels", "more than out_channels"


@dataclass(frozen=True)
class Kind:
    """A release, or one network of one.

    Attributes:
        parts: the networks that it has, and what diffusers' or transformers' `config.json` says of each at least;
            `...` is anything but nothing, `AS_MANY` and `MORE` compare with out_channels.
        clip: frames, height, width and frames a second of what it was trained on.
        shift, guidance, steps: of its sampler, where no scheduler's configuration comes with it.
        expert_boundary: the time down to which the first of two experts is used, and below which the low-noise one is;
            low_noise_guidance: the guidance scale there, if another.
        first_frame: whether a clip may begin with a given first frame, in place of its noise.
        licence: under which it was released.
    """

    parts: Mapping[PartName, Mapping[str, Any]]
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
        """The network that a folder of weights without any sub-folder is taken for."""
        return next(iter(self.parts))


def _wan(heads: int, ffn: int, layers: int) -> dict[str, Any]:
    return {"num_attention_heads": heads, "attention_head_dim": 128, "ffn_dim": ffn, "num_layers": layers}


TEXT = {"model_type": "umt5"}
XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
CLIP = {"model_type": "clip_vision_model"}
VIT_H = {"hidden_size": 1280, "num_hidden_layers": 32, "image_size": 224, "patch_size": 14}
VAE_21, VAE_22 = {"is_residual": False}, {"is_residual": True}
T2V = {"in_channels": AS_MANY, "image_dim": None}
I2V = {"in_channels": MORE}
T2V_16, I2V_16 = T2V | {"in_channels": 16, "out_channels": 16}, {"in_channels": 36, "out_channels": 16}
SEEN = {"image_dim": 1280, "pos_embed_seq_len": None}
SEEN_TWICE = {"image_dim": 1280, "pos_embed_seq_len": 514}
SMALL, LARGE, FIVE = _wan(12, 8960, 30), _wan(40, 13824, 40), _wan(24, 14336, 30)
HD = (81, 720, 1280, 16.0)


def _pipeline(
    transformer: Mapping[str, Any], vae: Mapping[str, Any] = VAE_21, *, experts: int = 1, image: bool = False
) -> dict[PartName, Mapping[str, Any]]:
    parts: dict[PartName, Mapping[str, Any]] = {"transformer": transformer}
    if experts == 2:
        parts["transformer_2"] = transformer
    parts |= {"vae": vae, "text_encoder": TEXT}
    return parts | {"image_encoder": CLIP} if image else parts


KINDS: dict[str, Kind] = {
    "wan2.1-t2v": Kind(_pipeline(T2V), shift=3.0),
    "wan2.1-t2v-1.3b": Kind(_pipeline(T2V_16 | SMALL), shift=3.0),
    "wan2.1-t2v-14b": Kind(_pipeline(T2V_16 | LARGE), HD),
    "wan2.1-i2v": Kind(_pipeline(I2V | {"image_dim": ..., "pos_embed_seq_len": None}, image=True), shift=3.0),
    "wan2.1-i2v-14b": Kind(_pipeline(I2V_16 | LARGE | SEEN, image=True), shift=3.0),
    "wan2.1-flf2v": Kind(_pipeline(I2V | {"image_dim": ..., "pos_embed_seq_len": ...}, image=True), HD),
    "wan2.1-flf2v-14b": Kind(_pipeline(I2V_16 | LARGE | SEEN_TWICE, image=True), HD),
    "wan2.2-t2v": Kind(_pipeline(T2V, experts=2), HD, expert_boundary=0.875),
    "wan2.2-t2v-a14b": Kind(
        _pipeline(T2V_16 | LARGE, experts=2),
        HD,
        12.0,
        guidance=4.0,
        steps=40,
        expert_boundary=0.875,
        low_noise_guidance=3.0,
    ),
    "wan2.2-i2v": Kind(_pipeline(I2V | {"image_dim": None}, experts=2), HD, expert_boundary=0.9),
    "wan2.2-i2v-a14b": Kind(
        _pipeline(I2V_16 | LARGE | {"image_dim": None}, experts=2), HD, guidance=3.5, steps=40, expert_boundary=0.9
    ),
    "wan2.2-ti2v": Kind(_pipeline(T2V, VAE_22), (121, 704, 1280, 24.0), first_frame=True),
    "wan2.2-ti2v-5b": Kind(
        _pipeline(FIVE | {"in_channels": 48, "out_channels": 48, "image_dim": None}, VAE_22),
        (121, 704, 1280, 24.0),
        first_frame=True,
    ),
    "wan2.1-vae": Kind({"vae": VAE_21}),
    "wan2.2-vae": Kind({"vae": VAE_22}),
    "umt5": Kind({"text_encoder": TEXT}),
    "umt5-xxl": Kind({"text_encoder": TEXT | XXL | {"vocab_size": 256384}}),
    "t5-v1.1": Kind({"text_encoder": {"model_type": "t5"}}),
    "t5-v1.1-xxl": Kind({"text_encoder": {"model_type": "t5"} | XXL | {"vocab_size": 32128}}),
    "clip": Kind({"image_encoder": CLIP}),
    "clip-vit-h": Kind({"image_encoder": CLIP | VIT_H}, licence="MIT"),
}
"""By name. One without a size takes any, as its files' `config.json` says."""
