"""Wan 2.1's shapes trained from scratch: its transformer, clips of 81 frames at 16 a second, captions of 512 tokens.

Command:   videodit train --config configs/wan.py:1.3b --workdir runs/wan-1.3b --config.data.path=LATENTS \
             --config.tokenizer=TOKENIZER --config.vae=VAE_WORKDIR
Hardware:  1.3b (480 x 832, 32,760 tokens) 4 chips of 16 GiB and up; 14b (720 x 1280, 75,600 tokens) 4 of 95 GiB and up.
Result:    none is published yet; traced abstractly by the tests.
"""

import dataclasses

from ml_collections import ConfigDict

from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.models.dit import SIZES
from videodit.models.text import TextConfig
from videodit.parallel.mesh import MeshConfig
from videodit.train.config import DataConfig, DiTRun
from videodit.train.config_io import to_config_dict
from videodit.train.optim import OptimConfig

# Height, width and the shift of times towards noise (arXiv:2503.20314).
VARIANTS = {"1.3b": (480, 832, 3.0), "14b": (720, 1280, 5.0)}


def get_config(variant: str = "1.3b") -> ConfigDict:
    """The configuration of one size."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/wan.py has the variants {', '.join(VARIANTS)}, not '{variant}'")
    height, width, shift = VARIANTS[variant]
    return to_config_dict(
        DiTRun(
            steps=200_000,
            data=DataConfig(
                path="data/train",
                eval_path="data/heldout",
                frames=81,
                height=height,
                width=width,
                fps=16.0,
                batch_size=64,
                text_length=512,
            ),
            model=dataclasses.replace(SIZES[variant], remat="full", dtype="bfloat16"),
            text=TextConfig(
                vocab_size=32128,
                width=4096,
                depth=2,
                num_heads=16,
                head_dim=64,
                mlp_width=4096,
                remat="full",
                dtype="bfloat16",
            ),
            tokenizer="data/tokenizer.model",
            vae="runs/vae",
            timesteps=TimestepConfig(shift=shift),
            sampler=SamplerConfig(steps=50, guidance=5.0, shift=shift),
            optim=OptimConfig(lr=1e-4, schedule="wsd", warmup=1000, decay=20_000),
            mesh=MeshConfig(data=1, fsdp=-1),
            ema=0.9999,
        )
    )
