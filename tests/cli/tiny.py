"""A configuration that trains in seconds; tests write its path with `--config`."""

import dataclasses

from ml_collections import ConfigDict

from tests.cli import releases
from videodit.config.data import DataConfig, PackingConfig
from videodit.config.io import to_config_dict
from videodit.config.optim import OptimConfig
from videodit.config.run import DiTRun, VAERun
from videodit.diffusion.sample import SamplerConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig
from videodit.nn.lora import LoRAConfig


def get_config(variant: str) -> ConfigDict:
    """Return the configuration of the smallest autoencoder ("vae") or transformer of the quickstart's shape."""
    data = DataConfig(
        path="train", eval_path=None, frames=9, height=16, width=16, fps=8.0, batch_size=8, eval_clips=8, text_length=16
    )
    common = {"steps": 2, "data": data, "log_every": 1, "eval_every": 2, "sample_every": 2, "save_every": 2}
    if variant == "vae":
        model = VAEConfig(
            channels=(8, 8, 8),
            strides=((2, 1), (2, 1)),
            patch=4,
            blocks=1,
            latent_channels=4,
            time_kernel=(1, 1, 1),
            mid_attention=False,
            shortcuts="strides",
        )
        return to_config_dict(VAERun(model=model, **common))
    if variant in ("dit", "packed"):
        if variant == "packed":
            packing = PackingConfig(length=64, clips=4, look_ahead=16)
            common["data"] = dataclasses.replace(data, packing=packing)
        return to_config_dict(
            DiTRun(
                model=DiTConfig(depth=1, width=16, num_heads=2, mlp_width=16, in_channels=4, text_width=8),
                text=TextConfig(vocab_size=128, width=8, depth=1, num_heads=1, head_dim=8, mlp_width=8),
                tokenizer="tokenizer.model",
                vae="vae",
                sampler=SamplerConfig(steps=2, guidance=2.0),
                **common,
            )
        )
    if variant in ("tune", "lora"):
        data = dataclasses.replace(data, frames=5)
        return to_config_dict(
            DiTRun(
                model=releases.DIT,
                text=releases.TEXT,
                tokenizer="tokenizer.model",
                vae="vae",
                text_encoder="text",
                lora=LoRAConfig(rank=2) if variant == "lora" else None,
                sampler=SamplerConfig(steps=2, guidance=2.0),
                optim=OptimConfig(lr=1e-2),
                ema=0.5,
                **(common | {"data": data}),
            )
        )
    raise ValueError(f"tiny.py has the variants vae and dit, not '{variant}'")
