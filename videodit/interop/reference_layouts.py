"""Our networks and the reference layouts that their weights are exchanged in."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from flax import nnx
from jaxtyping import Float

from videodit.interop import clip, text, wan, wan_vae
from videodit.interop.kinds import PartName
from videodit.interop.mapping import Rule
from videodit.models.dit import DiT, DiTConfig
from videodit.models.text import TextConfig, TextEncoder
from videodit.models.vae import VAE, VAEConfig
from videodit.models.vision import VisionConfig, VisionEncoder
from videodit.provenance import JSON

NetworkConfig = DiTConfig | VAEConfig | TextConfig | VisionConfig


@runtime_checkable
class LayoutModule(Protocol):
    """A module that maps a configuration of ours to the `config.json` and the tensors of a reference, and back."""

    def parse_config(self, fields: Mapping[str, JSON]) -> NetworkConfig: ...
    def export_config(self, cfg: NetworkConfig, *latent_stats: Float[np.ndarray, "C"]) -> dict[str, JSON]: ...
    def build_rules(self, cfg: NetworkConfig) -> list[Rule]: ...


@dataclass(frozen=True)
class ReferenceLayout:
    """A network of ours, and the layout that diffusers or transformers store it in.

    Attributes:
        module: maps configurations and names.
        make: our network's class.
        stem: the name of the reference's files, without number and suffix.
    """

    module: LayoutModule
    make: Callable[..., nnx.Module]
    stem: str

    def export_config(self, cfg: NetworkConfig, *latent_stats: Float[np.ndarray, "C"]) -> dict[str, JSON]:
        """Return the `config.json` of an exported network.

        Args:
            latent_stats: mean and standard deviation of latents, of an autoencoder.

        Raises:
            ValueError: if the network has options that the layout cannot express, naming them.
        """
        fields = self.module.export_config(cfg, *latent_stats)
        restored = self.module.parse_config(fields)
        different = [
            f"{field.name} is {getattr(cfg, field.name)!r}, there it is {getattr(restored, field.name)!r}"
            for field in dataclasses.fields(cfg)
            if field.name not in LAYOUT_INDEPENDENT and getattr(cfg, field.name) != getattr(restored, field.name)
        ]
        if different:
            raise ValueError(f"the layout cannot express the options of this network: {'; '.join(different)}")
        return fields


LAYOUT_INDEPENDENT = ("remat", "dtype", "logvar_range", "eps", "out_channels", "decoder_channels", "fps_reference")
"""Options that change neither names nor shapes, or that the layout expresses by another field."""

REFERENCE_LAYOUTS: dict[str, ReferenceLayout] = {
    "dit": ReferenceLayout(wan, DiT, "diffusion_pytorch_model"),
    "vae": ReferenceLayout(wan_vae, VAE, "diffusion_pytorch_model"),
    "text": ReferenceLayout(text, TextEncoder, "model"),
    "vision": ReferenceLayout(clip, VisionEncoder, "model"),
}
"""By the kind of our configuration."""

LAYOUT_OF_PART: dict[PartName, str] = {
    "transformer": "dit",
    "transformer_2": "dit",
    "vae": "vae",
    "text_encoder": "text",
    "image_encoder": "vision",
}
