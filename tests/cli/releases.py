"""Tiny releases: random networks, written as diffusers and transformers write them."""

import json

import jax
import numpy as np
from videodit_data import tokenizer

from videodit.interop import mapping, safetensors
from videodit.interop.reference_layouts import LAYOUT_OF_PART, REFERENCE_LAYOUTS
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig
from videodit.models.vision import VisionConfig
from videodit.nn.state import abstract_module, split_model

TEXT = TextConfig(vocab_size=96, width=16, depth=1, num_heads=2, head_dim=8, mlp_width=16, shared_bias=False)
IMAGE = VisionConfig(image_size=8, patch=4, width=12, depth=2, num_heads=2, mlp_width=16)
DIT = DiTConfig(
    depth=2,
    width=24,
    num_heads=2,
    mlp_width=32,
    in_channels=4,
    out_channels=4,
    text_width=16,
    attend_padding=True,
    qk_norm="full",
    cross_attn_norm=True,
    time_freq_dim=16,
)
VAE = VAEConfig(
    latent_channels=4,
    channels=(4, 8),
    strides=((2, 2),),
    blocks=1,
    upsample_to="half",
    quant_conv=True,
    time_kernel=(3, 3),
    logvar_range=(-30.0, 20.0),
    eps=1e-24,
)


def write(folder, parts, *, scheduler=None, index=None):
    """Write a release of these configurations, by the name of the part, with a tokenizer."""
    for seed, (name, cfg) in enumerate(parts.items()):
        layout = REFERENCE_LAYOUTS[LAYOUT_OF_PART[name]]
        part_folder = folder / name
        part_folder.mkdir(parents=True)
        _, shapes, _ = split_model(abstract_module(lambda rngs, layout=layout, cfg=cfg: layout.make(cfg, rngs=rngs)))
        rng = np.random.default_rng(seed)
        params = jax.tree.map(lambda x, rng=rng: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)
        statistics = [np.full(cfg.latent_channels, x, np.float32) for x in (0.1, 0.7)] if name == "vae" else ()
        (part_folder / "config.json").write_text(json.dumps(layout.export_config(cfg, *statistics)))
        safetensors.write(part_folder, layout.stem, mapping.export(layout.module.build_rules(cfg), params))
    captions = ["a red fox runs", "snow falls on a hill at night", "a small blue boat drifts away"]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(tokenizer.train(captions, 64))
    if scheduler is not None:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    if index is not None:
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder
