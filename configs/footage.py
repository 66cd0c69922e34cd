"""Real footage on a small machine: an autoencoder and a transformer on clips of your own.

Command:   videodit data ingest FOLDER --out runs/footage/data
           videodit data tokenizer runs/footage/data --out runs/footage/tokenizer.model
           videodit train --config configs/footage.py:vae --workdir runs/footage/vae
           videodit train --config configs/footage.py:dit --workdir runs/footage/dit
Hardware:  2 CPU cores, or any accelerator.
Result:    a test of the pipeline, not a model: a few clips are too little data.
"""

from ml_collections import ConfigDict

from videodit.config.data import DataConfig
from videodit.config.io import to_config_dict
from videodit.config.optim import OptimConfig
from videodit.config.run import DiTRun, VAERun
from videodit.diffusion.sample import SamplerConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig

WORKDIR = "runs/footage"


def data(batch_size: int) -> DataConfig:
    """Return the data: clips of 9 frames at 8 fps."""
    return DataConfig(
        path=f"{WORKDIR}/data",
        eval_path=f"{WORKDIR}/data",
        frames=9,
        height=64,
        width=64,
        fps=8.0,
        batch_size=batch_size,
        eval_clips=4,
        text_length=48,
    )


def vae() -> VAERun:
    return VAERun(
        steps=2000,
        data=data(4),
        model=VAEConfig(
            channels=(64, 64, 64),
            strides=((2, 1), (2, 1)),
            patch=8,
            latent_channels=32,
            blocks=1,
            time_kernel=(1, 1, 1),
            mid_attention=False,
            shortcuts="strides",
        ),
        optim=OptimConfig(lr=2e-3, warmup=100, final=0.02, weight_decay=0.0),
        l2=1.0,
    )


def dit() -> DiTRun:
    return DiTRun(
        steps=2000,
        data=data(16),
        model=DiTConfig(
            depth=6, width=192, num_heads=4, mlp_width=768, in_channels=32, text_width=128, fps_reference=8.0
        ),
        text=TextConfig(vocab_size=1024, width=128, depth=2, num_heads=4, head_dim=32, mlp_width=256),
        tokenizer=f"{WORKDIR}/tokenizer.model",
        vae=f"{WORKDIR}/vae",
        sampler=SamplerConfig(steps=20, guidance=3.0),
        optim=OptimConfig(lr=1e-3, warmup=100, final=0.02),
    )


def get_config(variant: str = "dit") -> ConfigDict:
    """Return the configuration of a stage."""
    variants = {"vae": vae, "dit": dit}
    if variant not in variants:
        raise ValueError(f"configs/footage.py has the variants {' and '.join(variants)}, not '{variant}'")
    return to_config_dict(variants[variant]())
