"""The quickstart in a few steps of small models, for trying `run.sh --tiny` on a CPU."""

import dataclasses

from ml_collections import ConfigDict

from videodit.config.io import load, to_config_dict


def get_config(variant: str = "dit") -> ConfigDict:
    """Return the configuration of one stage."""
    run = load(f"configs/quickstart.py:{variant}")
    if variant == "vae":
        model = dataclasses.replace(run.model, channels=(8, 8, 8), latent_channels=4)
    else:
        model = dataclasses.replace(run.model, depth=1, width=16, num_heads=2, mlp_width=16, in_channels=4)
    return to_config_dict(
        dataclasses.replace(
            run,
            steps=2,
            data=dataclasses.replace(run.data, batch_size=4, eval_clips=4, height=16, width=16),
            model=model,
            optim=dataclasses.replace(run.optim, warmup=1),
            log_every=1,
            eval_every=2,
            save_every=2,
            sample_every=0,
        )
    )
