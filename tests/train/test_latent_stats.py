import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.train.toy import host_batch, init_model, with_arrays, with_padding
from videodit.checkpoint import latent_stats
from videodit.models.vae import VAE, VAEConfig
from videodit.train.latent_stats import assign_latent_stats

CONFIG = VAEConfig(
    latent_channels=2, channels=(4, 4), strides=((2, 2),), time_kernel=(1, 1), blocks=1, mid_attention=False
)


@pytest.fixture
def vae():
    return nnx.merge(*init_model(lambda: VAE(CONFIG, rngs=nnx.Rngs(0))))


def test_the_latents_of_real_clips_are_normalized(vae):
    batches = [host_batch(n, 8) for n in range(2)]
    ones = np.ones((7, 5, 8, 8, 3), np.float32)
    filler = with_arrays(batches[1], video=np.concatenate([batches[1].arrays.video[:1], ones]))
    filler = with_padding(filler, ("a", *[""] * 7))
    assign_latent_stats(vae, [batches[0], filler])
    clips = np.concatenate([batches[0].arrays.video, batches[1].arrays.video[:1]])
    mean, _ = jax.device_get(jax.jit(vae.encode)(jnp.asarray(clips)))
    normal = (mean - np.asarray(vae.latent_mean[...])) / np.asarray(vae.latent_std[...])
    np.testing.assert_allclose(normal.mean((0, 1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 1, 2, 3)), 1, rtol=1e-4)


def test_a_global_latent_scale_keeps_the_channels_in_proportion(vae):
    batches = [host_batch(0, 8)]
    assign_latent_stats(vae, batches)
    each = np.asarray(vae.latent_std[...])
    assign_latent_stats(vae, batches, "global")
    np.testing.assert_allclose(vae.latent_std[...], np.sqrt(np.mean(each**2)), rtol=1e-6)


def test_stored_statistics_are_loaded_and_missing_ones_are_an_error(vae, tmp_path):
    with pytest.raises(ValueError, match=r"has no latents.json: train the autoencoder to its end"):
        latent_stats.load(vae, tmp_path)
    vae.latent_mean.set_value(jnp.array([0.1, -0.2]))
    vae.latent_std.set_value(jnp.array([1.5, 0.7]))
    latent_stats.write(tmp_path, 7, np.asarray(vae.latent_mean[...]), np.asarray(vae.latent_std[...]))
    assert latent_stats.measured_step(tmp_path) == 7
    before = np.asarray(vae.latent_std[...])
    vae.latent_std.set_value(jnp.ones(2))
    latent_stats.load(vae, tmp_path)
    np.testing.assert_array_equal(vae.latent_std[...], before)
    latent_stats.write(tmp_path, 7, np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=r"json: mean and std have 3 channels, the autoencoder's latents have 2"):
        latent_stats.load(vae, tmp_path)


@pytest.mark.parametrize("std", [0.0, -1.0, np.nan, np.inf])
def test_statistics_that_nothing_can_be_divided_by_are_not_written(tmp_path, std):
    with pytest.raises(ValueError, match=r"^std is .*: each of its numbers must be from 1e-30 to"):
        latent_stats.write(tmp_path, 7, np.zeros(2), np.array([1.0, std]))
    assert not list(tmp_path.iterdir())
