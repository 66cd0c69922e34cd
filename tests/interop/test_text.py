"""T5's and UMT5's encoders with the reference's weights."""

import jax.numpy as jnp
import pytest
from flax import nnx

from tests.interop.reference import load_model, relative_error
from videodit.interop import text
from videodit.interop.parts import drop_tied
from videodit.models.text import TextEncoder


@pytest.mark.parametrize("name", ["t5_encoder", "umt5_encoder"])
def test_reference_weights_give_reference_outputs(golden, name):
    case = golden(name)
    cfg = text.parse_config(case.fields)
    weights = drop_tied(case.weights, text.TIED)
    encoder = load_model(lambda: TextEncoder(cfg, rngs=nnx.Rngs(0)), text.build_rules(cfg), weights)
    encode = nnx.jit(TextEncoder.__call__)
    short = encode(encoder, jnp.asarray(case.io["in.input_ids"]), jnp.asarray(case.io["in.attention_mask"], bool))
    long = encode(encoder, jnp.asarray(case.io["in.long_ids"]), jnp.ones(case.io["in.long_ids"].shape, bool))
    assert relative_error(short, case.io["out.last_hidden_state"]) < 1e-5
    assert relative_error(long, case.io["out.long"]) < 1e-5
    assert text.parse_config(text.export_config(cfg)) == cfg


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("model_type", "bert", "model_type must be one of 't5', 'umt5', not 'bert'"),
        ("feed_forward_proj", "relu", "feed_forward_proj must be 'gated-gelu', not 'relu'"),
        ("dense_act_fn", "gelu", "dense_act_fn must be 'gelu_new', not 'gelu'"),
    ],
)
def test_other_encoders_are_refused(golden, key, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        text.parse_config(golden("t5_encoder").fields | {key: value})
