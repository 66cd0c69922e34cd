from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import SingleDeviceSharding

from tests.train.toy import build_noisy_model, host_batch, with_arrays
from videodit.config.data import DataConfig
from videodit.config.run import DiTRun, VAERun
from videodit.diffusion.sample import SamplerConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAE, VAEConfig
from videodit.train.batch import to_devices
from videodit.train.tasks.text_to_video import EVAL_TIMES, TextToVideoTask
from videodit.train.tasks.vae import VAETask

DATA = DataConfig(path="none", frames=5, height=8, width=8, fps=8.0, batch_size=4, text_length=4)
VAE_CONFIG = VAEConfig(
    latent_channels=2, channels=(4, 4), strides=((2, 2),), time_kernel=(1, 1), blocks=1, mid_attention=False
)
VAE_RUN = VAERun(steps=2, data=DATA, model=VAE_CONFIG, l1=1.0, l2=0.5, gradient=0.25, kl=0.1)
DIT_RUN = DiTRun(
    steps=2,
    data=DATA,
    model=DiTConfig(
        depth=1, width=16, num_heads=2, mlp_width=16, text_width=8, in_channels=2, time_freq_dim=8, rope_split=(4, 2, 2)
    ),
    text=TextConfig(vocab_size=16, width=8, depth=1, num_heads=1, head_dim=8, mlp_width=8),
    tokenizer="none",
    vae="none",
    sampler=SamplerConfig(steps=2, solver="euler", guidance=2.0),
)


def device_batch(**changes):
    host = with_arrays(host_batch(0, 4), **changes)
    return to_devices(host, SingleDeviceSharding(jax.devices()[0]))


@pytest.fixture(scope="module")
def vae():
    vae = build_noisy_model(lambda: VAE(VAE_CONFIG, rngs=nnx.Rngs(0)), 0)
    vae.latent_mean.set_value(jnp.array([0.5, -0.5]))
    vae.latent_std.set_value(jnp.array([2.0, 0.5]))
    return vae


@pytest.fixture(scope="module")
def posterior(vae):
    """Return mean and log-variance of the latents of the batch's clips, on the host."""
    return jax.device_get(jax.jit(vae.encode)(device_batch().video))


@pytest.fixture(scope="module")
def dit(vae):
    task = TextToVideoTask(DIT_RUN, {"vae": vae})
    return task, build_noisy_model(lambda: task.init(nnx.Rngs(1)), 1)


def test_the_vae_loss_is_the_weighted_sum_of_its_parts(vae, posterior):
    task, batch, (mean, logvar) = VAETask(VAE_RUN), device_batch(), posterior
    draws = np.random.default_rng(1).standard_normal((4, *task.latent_shape), np.float32)
    loss_B, aux = jax.jit(lambda draws: task.loss(vae, None, batch, draws))(draws)
    error = np.asarray(jax.jit(vae.decode)(mean + np.exp(logvar / 2) * draws) - batch.video)
    parts = {
        "l1": np.abs(error).mean((1, 2, 3, 4)),
        "l2": (error**2).mean((1, 2, 3, 4)),
        "gradient": sum(np.abs(np.diff(error, axis=axis)).mean((1, 2, 3, 4)) for axis in (2, 3)),
        "kl": 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).mean((1, 2, 3, 4)),
    }
    for name, values in parts.items():
        np.testing.assert_allclose(aux[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(
        loss_B, parts["l1"] + 0.5 * parts["l2"] + 0.25 * parts["gradient"] + 0.1 * parts["kl"], rtol=1e-4
    )


def test_the_vae_is_evaluated_on_what_it_shows(vae):
    task, batch = VAETask(VAE_RUN), device_batch()
    shown = np.asarray(jax.jit(lambda: task.sample(vae, None, batch, jax.random.key(0)))())
    assert shown.shape == batch.video.shape
    assert np.abs(shown).max() <= 1
    values = jax.jit(lambda: task.evaluate(vae, None, batch, jax.random.key(0)))()
    mse = ((shown - np.asarray(batch.video)) ** 2).mean((1, 2, 3, 4))
    np.testing.assert_allclose(values["psnr"], 10 * np.log10(4 / mse), rtol=1e-4)


@pytest.mark.parametrize("latent_sampling", ["mean", "sample"])
def test_the_transformer_learns_velocities_of_normalized_latents(dit, vae, posterior, latent_sampling):
    (_, model), (mean, logvar) = dit, posterior
    task, batch = TextToVideoTask(replace(DIT_RUN, latent_sampling=latent_sampling), {"vae": vae}), device_batch()
    draws = jax.jit(lambda: task.draw(batch, jax.random.key(3)))()
    latent = {"latent": (4, 3, 4, 4, 2)} if latent_sampling == "sample" else {}
    assert {name: x.shape for name, x in draws.items()} == {"t": (4,), "noise": (4, 3, 4, 4, 2)} | latent
    around = np.exp(logvar / 2) * draws["latent"] if latent else 0
    loss = jax.jit(lambda batch: task.loss(model, task.frozen_arrays(), batch, draws)[0])
    z = (mean + around - jnp.array([0.5, -0.5])) / jnp.array([2.0, 0.5])
    t = draws["t"][:, None, None, None, None]

    @jax.jit
    def velocity(x):
        return model.velocity(x, draws["t"], model.encode_text(batch.text_ids, batch.text_mask, batch.fps))

    error = velocity((1 - t) * z + t * draws["noise"]) - (draws["noise"] - z)
    np.testing.assert_allclose(loss(batch), np.mean(error**2, (1, 2, 3, 4)), rtol=1e-4)
    latent_batch = device_batch(video=None, latent_mean=mean, latent_logvar=logvar)
    np.testing.assert_allclose(loss(latent_batch), loss(batch), rtol=1e-5, err_msg="latents read are latents encoded")


def test_held_out_loss_is_the_mean_over_fixed_times_and_repeats(dit):
    task, model = dit
    evaluate = jax.jit(lambda key: task.evaluate(model, task.frozen_arrays(), device_batch(), key))
    values = evaluate(jax.random.key(0))
    assert set(values) == {"loss"} | {f"loss_t{t}" for t in EVAL_TIMES}
    np.testing.assert_allclose(values["loss"], np.mean([values[f"loss_t{t}"] for t in EVAL_TIMES], axis=0), rtol=1e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, values, evaluate(jax.random.key(0))))
    assert not np.array_equal(values["loss"], evaluate(jax.random.key(1))["loss"])


def test_samples_are_clips_that_heed_their_captions_and_keys(dit):
    task, model = dit
    sample = jax.jit(lambda batch, key: task.sample(model, task.frozen_arrays(), batch, key))
    clips = sample(device_batch(), jax.random.key(0))
    assert clips.shape == (4, 5, 8, 8, 3)
    assert np.abs(clips).max() <= 1
    assert not np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips, sample(device_batch(), jax.random.key(1)))
    mute = device_batch(text_mask=np.zeros((4, 4), bool))
    assert not np.array_equal(clips, sample(mute, jax.random.key(0)))


def test_a_vae_of_other_channels_is_refused(vae):
    run = replace(DIT_RUN, model=replace(DIT_RUN.model, in_channels=4))
    with pytest.raises(ValueError, match=r"model.in_channels is 4, but the latents of none have 2 channels"):
        TextToVideoTask(run, {"vae": vae})


def test_a_shape_of_a_vae_is_enough_to_trace(vae):
    abstract = nnx.eval_shape(lambda: VAE(VAE_CONFIG, rngs=nnx.Rngs(0)))
    task = TextToVideoTask(DIT_RUN, {"vae": abstract})
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(task.frozen_arrays()))
    assert task.tokens_per_clip == 3 * 2 * 2
    assert task.flops_per_clip > 0
