"""Wan's autoencoders: both ways, whole and in chunks."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.interop.reference import loaded, relative_error
from videodit.interop import wan_vae
from videodit.models.vae import VAE

CASES = pytest.mark.parametrize("name", ["wan_vae", "wan22_vae"])


def vae(case):
    cfg = wan_vae.config(case.facts)
    mean, std = wan_vae.statistics(case.facts)
    buffers = {"latent_mean": jnp.asarray(mean), "latent_std": jnp.asarray(std)}
    return loaded(lambda: VAE(cfg, rngs=nnx.Rngs(0)), wan_vae.rules(cfg), case.weights, buffers)


@CASES
@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.slow), 4])
def test_reference_weights_give_reference_latents(golden, name, chunk):
    case = golden(name)
    model, moments = vae(case), case.last("out.moments")
    mean, logvar = nnx.jit(lambda model, video: model.encode(video, chunk=chunk))(model, case.last("in.video"))
    true_mean, true_logvar = np.split(moments, 2, axis=-1)
    assert relative_error(mean, true_mean) < 1e-5
    assert relative_error(logvar, np.clip(true_logvar, -30, 20)) < 1e-5
    assert relative_error(model.normalise(mean), case.last("out.latent_normalised")) < 1e-5


@CASES
@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.slow), 1])
def test_reference_weights_give_reference_clips(golden, name, chunk):
    case = golden(name)
    latents = case.last("out.latent_mode")
    video = nnx.jit(lambda model, z: model.decode(z, chunk=chunk))(vae(case), latents)
    assert relative_error(jnp.clip(video, -1, 1), case.last("out.decoded")) < 1e-5


@CASES
def test_the_first_frame_is_coded_alone(golden, name):
    case = golden(name)
    mean, _ = nnx.jit(VAE.encode)(vae(case), case.last("in.video")[:, :1])
    assert relative_error(mean, case.last("out.latent_of_first_frame_alone")) < 1e-5


def test_spatial_scales_that_wan_has_not_are_refused(golden):
    with pytest.raises(ValueError, match="attn_scales"):
        wan_vae.config(golden("wan_vae").facts | {"attn_scales": [0.5]})
