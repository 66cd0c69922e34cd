"""Wan end to end with the reference's weights: guidance, each sampler, and the decoded clip."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.interop.reference import relative_error
from tests.interop.test_wan import load_dit
from tests.interop.test_wan_vae import load_vae
from videodit.diffusion.sample import sample_conditioned
from videodit.interop import schedulers
from videodit.models.conditioning import Conditioning


@pytest.mark.parametrize("name", ["unipc", pytest.param("euler", marks=pytest.mark.slow)])
def test_clips_are_those_of_the_reference(golden, name):
    case = golden("wan_pipeline")
    graph, state = nnx.split((load_dit(golden("wan_t2v")), load_vae(golden("wan_vae"))))
    kind = {"unipc": schedulers.UNIPC, "euler": schedulers.EULER}[name]
    shift = case.fields["flow_shift"]
    fields = {"_class_name": kind, "shift": shift, "flow_shift": shift}
    cfg = schedulers.parse_sampler(fields, case.fields["steps"], case.fields["guidance_scale"])

    @nnx.jit
    def run(state, noise, cond, uncond):
        dit, vae = nnx.merge(graph, state)

        def velocity(x, t, text):
            return dit(x, t, Conditioning(text, jnp.ones(text.shape[:2], bool)))

        latents = sample_conditioned(cfg, velocity, noise, cond, uncond)
        return latents, vae.decode(vae.denormalize(latents), chunk=1)

    text = (jnp.asarray(case.io[f"in.{which}prompt_embeds"]) for which in ("", "negative_"))
    latents, video = run(state, case.channels_last("in.latents"), *text)
    assert relative_error(latents, case.channels_last(f"out.{name}.latents")) < 1e-4
    pixels = np.clip(0.5 * np.asarray(video) + 0.5, 0, 1)
    assert relative_error(np.moveaxis(pixels, -1, 2), case.io[f"out.{name}.video"].astype(np.float32)) < 1e-3
