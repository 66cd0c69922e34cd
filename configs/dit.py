"""The family of transformers: S, B, L, XL, and the shapes of the largest open models, 1.3b and 14b.

Command:   videodit train --config configs/dit.py:B --workdir runs/dit-B --config.data.path=DATA \
             --config.tokenizer=TOKENIZER --config.vae=VAE_WORKDIR
Hardware:  S and B one chip of 16 GiB with --config.optim.micro_batches=8 and =16; L and XL 8 of them, =4; 1.3b 16, =4;
           14b 64 of 95 GiB (docs/plan.md has the meshes).
Result:    not published yet; the tests trace every variant abstractly.
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
from videodit.parallel.mesh import MeshConfig

# Frames, height and width; fps; clips of a batch.
CLIPS = {"toy": (9, 64, 64, 8.0, 16), "1.3b": (81, 480, 832, 16.0, 64), "14b": (81, 720, 1280, 16.0, 64)}
DEFAULT_CLIP = (17, 256, 256, 8.0, 256)


def get_config(variant: str = "B") -> ConfigDict:
    """Return the configuration of a size."""
    if variant not in SIZES:
        raise ValueError(f"configs/dit.py has the variants {', '.join(SIZES)}, not '{variant}'")
    frames, height, width, fps, batch_size = CLIPS.get(variant, DEFAULT_CLIP)
    model = dataclasses.replace(SIZES[variant], remat="full", dtype="bfloat16")
    return to_config_dict(
        DiTRun(
            steps=400_000,
            data=DataConfig(
                path="data/train",
                eval_path="data/heldout",
                frames=frames,
                height=height,
                width=width,
                fps=fps,
                batch_size=batch_size,
                text_length=128,
            ),
            model=model,
            text=TextConfig(
                vocab_size=32128,
                width=model.text_width,
                depth=2,
                num_heads=16,
                head_dim=64,
                mlp_width=model.text_width,
                remat="full",
                dtype="bfloat16",
            ),
            tokenizer="data/tokenizer.model",
            vae="runs/vae",
            objective=ObjectiveConfig(timesteps=TimestepConfig(shift=1.0, base_tokens=256)),
            sampler=SamplerConfig(steps=50, guidance=5.0, shift=1.0, base_tokens=256),
            optim=OptimConfig(lr=1e-4, schedule="wsd", warmup=1000, decay=40_000),
            mesh=MeshConfig(data=1, fsdp=-1),
            ema=0.9999,
        )
    )
