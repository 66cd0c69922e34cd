"""CLIP's image encoder with the reference's weights."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.interop.reference import load_model, relative_error
from videodit.interop import clip
from videodit.models.vision import VisionConfig, VisionEncoder, normalize


def test_reference_weights_give_reference_outputs(golden):
    case = golden("clip_vision")
    cfg = clip.parse_config(case.fields)
    encoder = load_model(lambda: VisionEncoder(cfg, rngs=nnx.Rngs(0)), clip.build_rules(cfg), case.weights)
    image = case.channels_last("in.pixel_values")
    tokens, pooled = nnx.jit(VisionEncoder.__call__)(encoder, image)
    assert relative_error(nnx.jit(VisionEncoder.penultimate)(encoder, image), case.io["out.penultimate"]) < 1e-5
    assert relative_error(tokens, case.io["out.last"]) < 1e-5
    assert relative_error(pooled, case.io["out.pooled"]) < 1e-5
    assert clip.parse_config(clip.export_config(cfg)) == cfg


def test_the_defaults_are_the_encoder_of_wan_s_image_to_video():
    cfg = VisionConfig()
    shapes = nnx.eval_shape(lambda: VisionEncoder(cfg, rngs=nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in nnx.to_flat_state(nnx.state(shapes)).leaves)
    assert cfg.tokens == 257 and count == 630_766_080  # ViT-H/14 without its projection


def test_grey_is_near_the_mean_of_clip_s_training_set():
    assert float(jnp.abs(normalize(jnp.zeros((1, 2, 2, 3)))).max()) < 0.4


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("hidden_act", "relu", "hidden_act must be one of 'gelu', 'quick_gelu', not 'relu'"),
        ("num_hidden_layers", 1, "num_hidden_layers is 1: it must be from 2"),
    ],
)
def test_encoders_that_are_not_clip_s_are_refused(key, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        clip.parse_config(clip.export_config(VisionConfig()) | {key: value})
