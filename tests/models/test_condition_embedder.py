"""Further conditioning inputs, in the transformer and in the planner's programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.cli.tiny import get_config
from tests.models.test_dit import TINY, clip, random_model
from videodit.config.io import from_config_dict
from videodit.models.condition_embedder import CONDITION_EMBEDDERS, ConditionEmbedder, find_embedders
from videodit.models.conditioning import CONCAT_CHANNELS
from videodit.models.dit import DiT
from videodit.models.text_to_video import TextToVideo
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.plan.program import build_program

MOVING = dataclasses.replace(TINY, conditions=("motion_score",))
SHAPE = (2, 1, 4, 4)


@CONDITION_EMBEDDERS.register("test_label")
class LabelEmbedder(ConditionEmbedder):
    """An embedder of an integer label as one token next to the text's."""

    shape, dtype = (), jnp.int32

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (4, width)))

    def embed_tokens(self, value):
        return self.table[...][value][:, None]


def with_score(inputs, score):
    x, t, conditioning = inputs
    return x, t, conditioning.with_inputs({"motion_score": jnp.asarray(score, jnp.float32)})


def test_a_new_input_changes_nothing_until_it_is_learnt():
    with_input, without = (DiT(cfg, rngs=nnx.Rngs(0)) for cfg in (MOVING, TINY))
    assert not np.any(with_input.conditions["motion_score"].embed_global(jnp.asarray([0.1, 0.9])))
    assert {*map(str, nnx.to_flat_state(nnx.state(without)))} < {*map(str, nnx.to_flat_state(nnx.state(with_input)))}


def test_a_clip_s_score_reaches_its_own_output_alone():
    graph, state = random_model(MOVING)
    predict = jax.jit(lambda score: nnx.merge(graph, state)(*with_score(clip(SHAPE), score)))
    low, mixed = predict([0.01, 0.01]), predict([0.01, 0.2])
    np.testing.assert_array_equal(low[0], mixed[0])
    assert np.abs(low[1] - mixed[1]).max() > 1e-4


def test_inputs_are_those_that_the_model_has():
    model = DiT(MOVING, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="needs the conditioning input 'motion_score'"):
        model(*clip(SHAPE))
    x, t, conditioning = with_score(clip(SHAPE), [0.0, 0.0])
    with pytest.raises(ValueError, match="takes no conditioning input 'speed', only motion_score"):
        model(x, t, conditioning.with_inputs({**conditioning.inputs, "speed": jnp.zeros(2)}))


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (("motion_score", "motion_score"), "names 'motion_score' twice"),
        (("motion_score", "motion_score=my:Own"), "names 'motion_score' twice"),
        (("image",), "'image' is an input of images"),
        (("first_frames=my:Own",), "'first_frames' is an input of images"),
    ],
)
def test_names_are_one_s_own(conditions, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, conditions=conditions)


def test_the_planner_gives_every_program_its_inputs():
    run = from_config_dict(get_config("dit"))
    model = dataclasses.replace(run.model, conditions=("motion_score", "label=test_label"))
    data = dataclasses.replace(run.data, conditions=("motion_score", "label=tests:label"))
    run = dataclasses.replace(run, mesh=MeshConfig(), model=model, data=data)
    vae = from_config_dict(get_config("vae")).model
    for what in ("train", "sample", "denoise"):
        program = build_program(what, run, make_mesh(run.mesh, heads=run.heads), vae)
        types = {(x.shape, str(x.dtype)) for x in jax.tree.leaves(program.arguments)}
        assert {((run.data.batch_size,), "float32"), ((run.data.batch_size,), "int32")} <= types
        program.fn.trace(*program.arguments)
    assert find_embedders(model.conditions) == {
        "motion_score": CONDITION_EMBEDDERS.get("motion_score"),
        "label": LabelEmbedder,
    }


def test_a_data_prediction_is_taken_from_latents_without_their_conditioning_channels():
    run = from_config_dict(get_config("dit")).model
    channels = run.in_channels
    cfg = dataclasses.replace(run, in_channels=2 * channels, out_channels=channels)
    model = TextToVideo(cfg, None, prediction="data", rngs=nnx.Rngs(0))
    x, _, conditioning = clip((1, 3, 4, 4), channels=channels)
    text = jnp.zeros((1, 4, cfg.text_width))
    conditioning = dataclasses.replace(conditioning, text=text, inputs={CONCAT_CHANNELS: jnp.ones_like(x)})
    v = model.velocity(x, jnp.ones(1), conditioning)
    np.testing.assert_allclose(v, x, rtol=1e-6)  # the head is zero at first, so that the predicted data are zero
