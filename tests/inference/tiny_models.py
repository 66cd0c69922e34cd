"""Models with random weights in directories of their own, as training or an import writes them."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from videodit_data.tokenizer import train as train_tokenizer

from tests.cli.tiny import get_config
from tests.train.toy import build_noisy_model
from videodit.checkpoint import latent_stats
from videodit.checkpoint.checkpoints import save_params
from videodit.checkpoint.restore import build_model
from videodit.checkpoint.workdir import describe
from videodit.config.io import WorkdirConfig, from_config_dict
from videodit.nn.state import split_model

PROMPTS = ["a red circle moves left", "a blue star stands still"]


def write_model(workdir: Path, config: WorkdirConfig, seed: int = 0) -> Path:
    """Write a model with random weights as a checkpoint of step 0."""
    workdir.mkdir(parents=True)
    params, buffers = split_model(build_noisy_model(lambda: build_model(config, nnx.Rngs(0)), seed))[1:]
    save_params(workdir / "checkpoints", params, buffers)
    describe(workdir, config)
    return workdir


def write_text_to_video(root: Path) -> Path:
    """Write an autoencoder, a tokenizer and a transformer into one directory."""
    vae = replace(from_config_dict(get_config("vae")), ema=0.0)
    write_model(root / "vae", vae)
    channels = vae.model.latent_channels
    latent_stats.write(root / "vae", 0, np.linspace(-0.1, 0.1, channels), np.linspace(0.5, 2.0, channels))
    (root / "tokenizer.model").write_bytes(train_tokenizer(PROMPTS, 64))
    dit = replace(from_config_dict(get_config("dit")), ema=0.0, vae="vae", tokenizer="tokenizer.model")
    params, buffers = split_model(build_noisy_model(lambda: build_model(dit, nnx.Rngs(0)), 1))[1:]
    save_params(root / "checkpoints", jax.tree.map(lambda x: 0.2 * x, params), buffers)
    describe(root, dit)
    return root
