"""Training on cached embeddings equals training with the frozen encoder."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.sharding import SingleDeviceSharding

from tests.train.test_packed import RUN, data, host  # noqa: F401
from tests.train.test_tasks import VAE_CONFIG
from tests.train.toy import build_noisy_model, host_batch, with_arrays
from videodit.config.data import PackingConfig
from videodit.models.text import TextEncoder
from videodit.models.text_to_video import EOS, empty_captions
from videodit.models.vae import VAE
from videodit.nn.state import abstract_module, split_model
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.batch import to_devices
from videodit.train.tasks.text_to_video import TextToVideoTask

PACKED = replace(RUN, text_encoder="text")
PLAIN = replace(PACKED, data=replace(RUN.data, packing=PackingConfig()))
LENGTH = RUN.data.text_length


@pytest.fixture(scope="module")
def encoder():
    return build_noisy_model(lambda: TextEncoder(RUN.text, rngs=nnx.Rngs(2)), 2)


@pytest.fixture(scope="module")
def encode(encoder):
    graphdef, state = nnx.split(encoder)
    run = jax.jit(lambda ids, mask: jnp.where(mask[..., None], nnx.merge(graphdef, state)(ids, mask), 0))
    return lambda ids, mask: np.asarray(run(ids, mask))


@pytest.fixture(scope="module")
def tasks(encoder, encode):
    """Build tasks with the encoder and with cached embeddings, on packed sequences and on clips."""
    vae = build_noisy_model(lambda: VAE(VAE_CONFIG, rngs=nnx.Rngs(0)), 0)
    ids = np.where(np.arange(LENGTH) == 0, EOS, 0).astype(np.int32)
    empty_caption = {"text": encode(ids[None], ids[None] > 0)[0], "text_mask": ids > 0}
    return {
        name: (TextToVideoTask(run, {"vae": vae, "text": encoder}), TextToVideoTask(run, {"vae": vae}, empty_caption))
        for name, run in (("packed", PACKED), ("plain", PLAIN))
    }


@pytest.fixture(scope="module")
def model(tasks):
    return build_noisy_model(lambda: tasks["plain"][0].init(nnx.Rngs(1)), 1)


def replace_tokens(batch, encode):
    """Replace the tokens of a batch on the host by their embeddings."""
    captions = (getattr(batch.arrays, name).reshape(-1, LENGTH) for name in ("text_ids", "text_mask"))
    text = encode(*captions).reshape(*batch.arrays.text_mask.shape, -1)
    return with_arrays(batch, text_ids=None, text=text)


def on_device(batch):
    return to_devices(batch, SingleDeviceSharding(jax.devices()[0]))


def clips():
    """Draw a batch of latents with tokens."""
    rng, batch = np.random.default_rng(0), host_batch(0, 4, length=LENGTH)
    mean, logvar = rng.standard_normal((2, 4, 3, 4, 4, 2), np.float32)
    return with_arrays(batch, video=None, latent_mean=mean, latent_logvar=logvar)


@pytest.mark.parametrize("kind", [pytest.param("packed", marks=pytest.mark.slow), "plain"])
def test_loss_and_gradient_are_those_of_encoding_on_the_fly(kind, tasks, model, encode, request):
    batch = clips() if kind == "plain" else request.getfixturevalue("host")
    (live, cached), (graphdef, params, buffers) = tasks[kind], split_model(model)

    def value_and_gradient(task):
        def total(params, frozen, batch):
            draws = task.draw(batch, jax.random.key(3))
            losses, _ = task.loss(nnx.merge(graphdef, params, buffers), frozen, batch, draws)
            return jnp.sum(losses, where=batch.valid)

        compiled = jax.jit(jax.value_and_grad(total))
        return lambda batch: compiled(params, task.frozen_arrays(), on_device(batch))

    value, gradient = value_and_gradient(live)(batch)
    cached_batch, from_cache = replace_tokens(batch, encode), value_and_gradient(cached)
    assert cached_batch.arrays.text.any()
    for dtype, tolerance in ((np.float32, 1e-5), (ml_dtypes.bfloat16, 2e-2)):
        rounded = cached_batch.arrays.text.astype(dtype).astype(np.float32)
        found, slope = from_cache(with_arrays(cached_batch, text=rounded))
        np.testing.assert_allclose(found, value, rtol=tolerance)
        for x, y in zip(jax.tree.leaves(slope), jax.tree.leaves(gradient), strict=True):
            assert float(jnp.linalg.norm(x - y)) <= tolerance * float(jnp.linalg.norm(y)) + 1e-6


def test_captions_and_the_empty_caption_have_the_encoder_s_embeddings(tasks, model, encode):
    cached, token_batch = tasks["plain"][1], clips()
    batch, frozen = on_device(replace_tokens(token_batch, encode)), cached.frozen_arrays()
    conditional, unconditional = (
        cached._condition(model, frozen, each) for each in (batch, cached._unconditional_batch(frozen, batch))
    )
    arrays = token_batch.arrays
    ids, mask = empty_captions(jnp.asarray(arrays.text_ids))
    for found, tokens in ((conditional, (arrays.text_ids, arrays.text_mask)), (unconditional, (ids, mask))):
        assert np.array_equal(found.text_mask, tokens[1]) and np.array_equal(found.fps, arrays.fps)
        np.testing.assert_allclose(found.text, encode(*map(np.asarray, tokens)), rtol=1e-5, atol=1e-6)


def test_cached_text_needs_neither_the_encoder_s_weights_nor_its_flops():
    vae, encoder = (
        abstract_module(lambda rngs, of=of: of[0](of[1], rngs=rngs))
        for of in ((VAE, VAE_CONFIG), (TextEncoder, PLAIN.text))
    )
    empty_caption = {"text": np.zeros((LENGTH, 8), ml_dtypes.bfloat16), "text_mask": np.arange(LENGTH) < 1}
    live = TextToVideoTask(PLAIN, {"vae": vae, "text": encoder})
    cached = TextToVideoTask(PLAIN, {"vae": vae}, empty_caption)
    assert set(live.frozen_arrays()) == {"vae", "text"} and set(cached.frozen_arrays()) == {"vae", "empty"}
    assert cached.flops_per_clip < live.flops_per_clip
    shapes = cached.frozen_shardings(make_mesh(MeshConfig()))["empty"]
    assert {name: (x.shape, x.dtype) for name, x in shapes.items()} == {
        name: (x.shape, x.dtype) for name, x in empty_caption.items()
    }
