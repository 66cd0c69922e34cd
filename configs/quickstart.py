"""The toy world on two CPU cores: an autoencoder, then a transformer on its latents.

Command:   make quickstart   (or: videodit quickstart --workdir runs/quickstart)
One stage: videodit train --config configs/quickstart.py:vae --workdir runs/quickstart/vae
           videodit train --config configs/quickstart.py:dit --workdir runs/quickstart/dit
Hardware:  2 CPU cores, 4 GiB of memory.
Result:    see README.md, which shows the figures of one run.
"""

from ml_collections import ConfigDict

from videodit.config.data import DataConfig
from videodit.config.io import to_config_dict
from videodit.config.optim import OptimConfig
from videodit.config.run import DiTRun, VAERun
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig

WORKDIR = "runs/quickstart"


def vae() -> VAERun:
    """Return the autoencoder: clips of 9 x 32 x 32 become latents of 3 x 8 x 8 with 12 channels."""
    return VAERun(
        steps=440,
        data=DataConfig(
            path=f"{WORKDIR}/data/train",
            eval_path=f"{WORKDIR}/data/heldout",
            frames=9,
            height=32,
            width=32,
            fps=8.0,
            batch_size=4,
            num_threads=1,
        ),
        model=VAEConfig(
            latent_channels=12,
            channels=(64, 64, 64),
            strides=((2, 1), (2, 1)),
            patch=4,
            blocks=1,
            time_kernel=(1, 1, 1),
            mid_attention=False,
            shortcuts="strides",
        ),
        optim=OptimConfig(kind="muon", muon_rms=1.0, lr=2e-3, warmup=50, final=0.02, b2=0.99, weight_decay=0.0),
        l2=1.0,
        # A broad posterior makes the decoder robust to small errors of the transformer.
        kl=1e-2,
        latent_scale="global",
        ema=0.99,
        log_every=20,
        eval_every=440,
        save_every=220,
        sample_every=440,
        keep=1,
    )


def dit() -> DiTRun:
    """Return the transformer of 48 tokens of 2 x 2 latents, trained with its text encoder."""
    return DiTRun(
        steps=640,
        data=DataConfig(
            path=f"{WORKDIR}/data/train-latents",
            eval_path=f"{WORKDIR}/data/heldout-latents",
            frames=9,
            height=32,
            width=32,
            fps=8.0,
            batch_size=32,
            text_length=20,
            num_threads=1,
        ),
        model=DiTConfig(
            depth=6,
            width=128,
            num_heads=4,
            mlp_width=512,
            in_channels=12,
            text_width=128,
            pooled_text=True,
            fps_reference=8.0,
            remat="dots",
        ),
        text=TextConfig(vocab_size=256, width=128, depth=1, num_heads=4, head_dim=32, mlp_width=256),
        tokenizer=f"{WORKDIR}/data/tokenizer.model",
        vae=f"{WORKDIR}/vae",
        # Objects and motions are determined at high noise levels: shift training and sampling there.
        objective=ObjectiveConfig(timesteps=TimestepConfig(shift=5.5, std=1.2)),
        sampler=SamplerConfig(steps=12, guidance=3.0, shift=5.5),
        optim=OptimConfig(kind="muon", muon_rms=1.0, lr=1.9e-3, warmup=50, final=0.02, b2=0.99, weight_decay=0.01),
        ema=0.99,
        log_every=20,
        eval_every=320,
        save_every=160,
        sample_every=640,
        keep=1,
    )


def get_config(variant: str = "dit") -> ConfigDict:
    """Return the configuration of a stage."""
    variants = {"vae": vae, "dit": dit}
    if variant not in variants:
        raise ValueError(f"configs/quickstart.py has the variants {' and '.join(variants)}, not '{variant}'")
    return to_config_dict(variants[variant]())
