"""The quickstart at a larger size, for one GPU of 80 GB and up: clips of 17 x 64 x 64, a transformer of width 384.

Command:   videodit quickstart --config experiments/gpu/quickstart_large.py --clips 6000 --workers 12
Hardware:  one H100 or H200; the two trainings are meant to take two minutes together there.
Result:    none yet: it has not run on a GPU.
"""

import dataclasses

from ml_collections import ConfigDict

from videodit.config.data import DataConfig
from videodit.config.io import load, to_config_dict
from videodit.config.run import DiTRun, VAERun


def widen(data: DataConfig, batch_size: int) -> DataConfig:
    """Return a data configuration with larger clips in larger batches."""
    return dataclasses.replace(data, batch_size=batch_size, num_threads=4, frames=17, height=64, width=64)


def vae(run: VAERun) -> VAERun:
    """Return the autoencoder's run, which encodes clips to 5 x 16 x 16 latents."""
    model = dataclasses.replace(run.model, channels=(96, 96, 96), dtype="bfloat16")
    return dataclasses.replace(
        run, steps=800, data=widen(run.data, 16), model=model, eval_every=800, save_every=800, sample_every=800
    )


def dit(run: DiTRun) -> DiTRun:
    """Return the transformer's run, with 320 tokens of 2 x 2 latents."""
    model = dataclasses.replace(
        run.model, depth=12, width=384, num_heads=6, mlp_width=1536, text_width=256, remat="none", dtype="bfloat16"
    )
    text = dataclasses.replace(run.text, width=256, depth=2, num_heads=4, head_dim=64, mlp_width=512, dtype="bfloat16")
    return dataclasses.replace(
        run,
        steps=3000,
        data=widen(run.data, 64),
        model=model,
        text=text,
        optim=dataclasses.replace(run.optim, lr=1e-3, warmup=200),
        log_every=100,
        eval_every=3000,
        save_every=3000,
        sample_every=3000,
    )


def get_config(variant: str = "dit") -> ConfigDict:
    """Return the configuration of one stage."""
    stages = {"vae": vae, "dit": dit}
    if variant not in stages:
        raise ValueError(f"quickstart_large.py has the variants {' and '.join(stages)}, not '{variant}'")
    return to_config_dict(stages[variant](load(f"configs/quickstart.py:{variant}")))
