"""Wan 2.1's shapes trained from scratch: its transformer, clips of 81 frames at 16 fps, captions of 512 tokens.

`_tune` and `_lora` fine-tune the released weights (`videodit import`) with their frozen text encoder.

Command:   videodit train --config configs/wan.py:1.3b --workdir runs/wan-1.3b --config.data.path=LATENTS \
             --config.tokenizer=TOKENIZER --config.vae=VAE_WORKDIR
           videodit train --config configs/wan.py:1.3b_lora --init CKPT --workdir runs/lora --config.data.path=LATENTS
Hardware:  1.3b (480 x 832, 32,760 tokens) 4 chips of 16 GiB and up; 14b (720 x 1280, 75,600 tokens) 4 of 95 GiB and up.
Result:    not published yet; the tests trace it abstractly.
"""

import dataclasses

from ml_collections import ConfigDict

from videodit.config.data import DataConfig
from videodit.config.io import to_config_dict
from videodit.config.optim import OptimConfig
from videodit.config.run import DiTRun
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.models.dit import SIZES
from videodit.models.text import TextConfig
from videodit.nn.lora import LoRAConfig
from videodit.parallel.mesh import MeshConfig

# Height, width and the shift of times towards noise (arXiv:2503.20314).
CLIPS = {"1.3b": (480, 832, 3.0), "14b": (720, 1280, 5.0)}
VARIANTS = [f"{size}{how}" for how in ("", "_tune", "_lora") for size in CLIPS]

# The text encoder of training from scratch, and UMT5-XXL.
TEXT = TextConfig(vocab_size=32128, width=4096, depth=2, num_heads=16, head_dim=64, mlp_width=4096, remat="full")
UMT5 = TextConfig(
    vocab_size=256384, width=4096, depth=24, num_heads=64, head_dim=64, mlp_width=10240, shared_bias=False
)


def get_config(variant: str = "1.3b") -> ConfigDict:
    """Return the configuration of a size: from scratch, fine-tuning all released weights, or training adapters."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/wan.py has the variants {', '.join(VARIANTS)}, not '{variant}'")
    size, _, how = variant.partition("_")
    height, width, shift = CLIPS[size]
    run = DiTRun(
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
        model=dataclasses.replace(SIZES[size], remat="full", dtype="bfloat16"),
        text=dataclasses.replace(TEXT, dtype="bfloat16"),
        tokenizer="data/tokenizer.model",
        vae="runs/vae",
        objective=ObjectiveConfig(timesteps=TimestepConfig(shift=shift)),
        sampler=SamplerConfig(steps=50, guidance=5.0, shift=shift),
        optim=OptimConfig(lr=1e-4, schedule="wsd", warmup=1000, decay=20_000),
        mesh=MeshConfig(data=1, fsdp=-1),
        ema=0.9999,
    )
    return to_config_dict(_fine_tune(run, how) if how else run)


def _fine_tune(run: DiTRun, how: str) -> DiTRun:
    """Return the run for fine-tuning the released weights of `--init`."""
    lora = LoRAConfig(rank=32, alpha=32.0) if how == "lora" else None
    sampler = SamplerConfig(
        steps=50, guidance=5.0, shift=run.objective.timesteps.shift, t_min=0.001, quantize_timesteps=True
    )
    return dataclasses.replace(
        run,
        steps=10_000,
        data=dataclasses.replace(run.data, batch_size=16),
        model=dataclasses.replace(run.model, out_channels=16, attend_padding=True),
        text=dataclasses.replace(UMT5, dtype="bfloat16"),
        tokenizer="tokenizer.model",
        vae="vae",
        text_encoder="text",
        lora=lora,
        sampler=sampler,
        optim=OptimConfig(lr=1e-4 if lora else 1e-5, schedule="constant", warmup=100),
        ema=0.0 if lora else 0.9999,
    )
