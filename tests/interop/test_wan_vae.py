"""Wan's autoencoders: encoding and decoding, at once and in chunks."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.interop.reference import load_model, relative_error
from videodit.interop import wan_vae
from videodit.models.vae import VAE

CASES = pytest.mark.parametrize("name", ["wan_vae", "wan22_vae"])


def load_vae(case):
    cfg = wan_vae.parse_config(case.fields)
    mean, std = wan_vae.parse_latent_stats(case.fields)
    buffers = {"latent_mean": jnp.asarray(mean), "latent_std": jnp.asarray(std)}
    return load_model(lambda: VAE(cfg, rngs=nnx.Rngs(0)), wan_vae.build_rules(cfg), case.weights, buffers)


@CASES
@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.slow), 4])
def test_reference_weights_give_reference_latents(golden, name, chunk):
    case = golden(name)
    model, mean_logvar = load_vae(case), case.channels_last("out.moments")
    mean, logvar = nnx.jit(lambda model, video: model.encode(video, chunk=chunk))(model, case.channels_last("in.video"))
    true_mean, true_logvar = np.split(mean_logvar, 2, axis=-1)
    assert relative_error(mean, true_mean) < 1e-5
    assert relative_error(logvar, np.clip(true_logvar, -30, 20)) < 1e-5
    assert relative_error(model.normalize(mean), case.channels_last("out.latent_normalised")) < 1e-5


@CASES
@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.slow), 1])
def test_reference_weights_give_reference_clips(golden, name, chunk):
    case = golden(name)
    latents = case.channels_last("out.latent_mode")
    video = nnx.jit(lambda model, z: model.decode(z, chunk=chunk))(load_vae(case), latents)
    assert relative_error(jnp.clip(video, -1, 1), case.channels_last("out.decoded")) < 1e-5


@CASES
def test_the_first_frame_is_encoded_on_its_own(golden, name):
    case = golden(name)
    mean, _ = nnx.jit(VAE.encode)(load_vae(case), case.channels_last("in.video")[:, :1])
    assert relative_error(mean, case.channels_last("out.latent_of_first_frame_alone")) < 1e-5


def test_attention_scales_are_refused(golden):
    with pytest.raises(ValueError, match="attn_scales"):
        wan_vae.parse_config(golden("wan_vae").fields | {"attn_scales": [0.5]})
