"""The runs of `configs.py` as the commit that goldens are compared with has them.

Edited only for settings that no figure depends on.
"""

import dataclasses

from ml_collections import ConfigDict
from videodit.train.config import BucketsConfig, DataConfig, DiTRun, PackingConfig, VAERun
from videodit.train.config_io import to_config_dict

from videodit.diffusion.sample import SamplerConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig
from videodit.nn.lora import LoRAConfig
from videodit.parallel.mesh import MeshConfig
from videodit.train.optim import OptimConfig

STEPS = 20


def get_config(variant: str) -> ConfigDict:
    """Return the run `KIND-DEVICES`: vae, dit, packed, bucketed or lora on 1 device or 4."""
    kind, _, devices = variant.partition("-")
    data = DataConfig(
        path="small",
        eval_path="heldout",
        frames=9,
        height=16,
        width=16,
        fps=8.0,
        batch_size=8,
        eval_clips=8,
        text_length=16,
    )
    mesh = MeshConfig(data=1, fsdp=2, context=2) if devices == "4" else MeshConfig()
    if kind == "vae":
        model = VAEConfig(
            channels=(8, 8, 16),
            strides=((2, 1), (2, 1)),
            patch=4,
            blocks=1,
            time_kernel=(1, 3, 3),
            latent_channels=4,
            shortcuts="strides",
        )
        return to_config_dict(
            VAERun(
                seed=1,
                steps=STEPS,
                data=data,
                mesh=mesh,
                model=model,
                optim=OptimConfig(lr=1e-3, warmup=5),
                gradient=0.5,
                log_every=1,
                eval_every=10,
                save_every=0,
                sample_every=0,
            )
        )
    model = DiTConfig(depth=2, width=32, num_heads=2, mlp_width=64, in_channels=4, text_width=16, pooled_text=True)
    text = TextConfig(vocab_size=128, width=16, depth=1, num_heads=2, head_dim=8, mlp_width=32)
    if kind == "packed":
        packing = PackingConfig(length=32, clips=4, look_ahead=16)
        data = dataclasses.replace(data, path="latents", eval_path="latents", packing=packing)
    if kind == "bucketed":
        buckets = BucketsConfig(tokens=96, sides=(16, 20), frames=(1, 9))
        data = dataclasses.replace(data, path="small:2,wide:1", buckets=buckets)
    return to_config_dict(
        DiTRun(
            seed=2,
            steps=STEPS,
            data=data,
            mesh=mesh,
            model=model,
            text=text,
            tokenizer="tokenizer.model",
            vae="vae-1",
            lora=LoRAConfig(rank=2) if kind == "lora" else None,
            posterior="draw" if kind == "packed" else "mean",
            sampler=SamplerConfig(steps=4, guidance=2.0),
            optim=OptimConfig(lr=1e-3, warmup=5, micro_batches=1 if kind == "bucketed" else 2),
            log_every=1,
            eval_every=10,
            save_every=STEPS // 2,
            sample_every=0,
        )
    )
