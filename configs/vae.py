"""The causal video autoencoder: 8 x 8 pixels and 4 frames to a latent of 16 channels.

Command:   videodit train --config configs/vae.py --workdir runs/vae --config.data.path=DATA
Hardware:  8 chips of 16 GiB with --config.optim.micro_batches=4 (docs/plan.md).
Result:    not published yet; the tests trace it abstractly.
"""

from ml_collections import ConfigDict

from videodit.config.data import DataConfig
from videodit.config.io import to_config_dict
from videodit.config.optim import OptimConfig
from videodit.config.run import VAERun
from videodit.models.vae import VAEConfig


def get_config() -> ConfigDict:
    """Return the configuration."""
    return to_config_dict(
        VAERun(
            steps=200_000,
            data=DataConfig(
                path="data/train", eval_path="data/heldout", frames=17, height=256, width=256, fps=8.0, batch_size=32
            ),
            model=VAEConfig(dtype="bfloat16"),
            kl=1e-6,
            optim=OptimConfig(lr=1e-4, warmup=1000, weight_decay=0.0),
        )
    )
