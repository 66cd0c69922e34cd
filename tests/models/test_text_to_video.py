"""The pair of transformer and text encoder: its types of prediction, and its conditioning inputs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.cli.tiny import get_config
from tests.train.toy import build_noisy_model
from videodit.config.io import from_config_dict
from videodit.models.conditioning import FIRST_FRAMES, Conditioning
from videodit.models.text_to_video import MIN_TIME, TextToVideo

RUN = from_config_dict(get_config("dit"))
SHAPE = (2, 3, 4, 4, 4)


@pytest.fixture(scope="module")
def model():
    return build_noisy_model(lambda: TextToVideo(RUN.model, None, rngs=nnx.Rngs(0)), 0)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    x, text = rng.standard_normal(SHAPE, np.float32), rng.standard_normal((2, 5, 8), np.float32)
    conditioning = Conditioning(jnp.asarray(text), jnp.ones((2, 5), bool), jnp.full(2, 8.0))
    return jnp.asarray(x), jnp.asarray([0.01, 0.7]), conditioning


def test_a_data_prediction_is_read_as_the_velocity_that_leads_to_it(model, inputs):
    x, t, conditioning = inputs
    graphdef, state = nnx.split(model)

    def velocity(prediction):
        other = nnx.merge(graphdef, state)
        other.prediction = prediction
        return other.velocity(x, t, conditioning)

    output, v = jax.jit(lambda: (velocity("velocity"), velocity("data")))()
    expected = (x - output) / jnp.maximum(t, MIN_TIME)[:, None, None, None, None]
    np.testing.assert_allclose(v, expected, rtol=1e-5, atol=1e-6)


def test_first_frames_are_conditioned_on_without_noise_at_time_zero(model, inputs):
    """The noisy latents and times at the positions of conditioning frames are ignored."""
    x, t, conditioning = inputs
    conditioning = replace(conditioning, inputs={FIRST_FRAMES: jnp.ones((2, 1, 4, 4, 4))})
    velocity = jax.jit(model.velocity)
    v = velocity(x, t, conditioning)
    np.testing.assert_array_equal(v, velocity(x.at[:, 0].set(7.0), t, conditioning))
    other = replace(conditioning, inputs={FIRST_FRAMES: jnp.zeros((2, 1, 4, 4, 4))})
    assert (v[:, 1:] != velocity(x, t, other)[:, 1:]).any()
