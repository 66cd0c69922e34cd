import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import SingleDeviceSharding

from tests.train.toy import ToyTask, host_batch, with_padding
from videodit.nn.state import split_model
from videodit.train.heldout import HeldOut
from videodit.train.state import TrainState


@pytest.fixture(scope="module")
def state():
    _, params, buffers = split_model(ToyTask().init(nnx.Rngs(0)))
    return TrainState(np.int32(0), None, params, None, buffers)


def build_held_out(data):
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: ToyTask().init(nnx.Rngs(0))))
    sharding = SingleDeviceSharding(jax.devices()[0])
    return HeldOut(ToyTask(), graphdef, data, 0, sharding, sharding)


def test_every_real_clip_counts_once_and_only_the_average_is_read(state):
    batches = [host_batch(n, 4) for n in range(2)]
    frozen = ToyTask().frozen_arrays()
    whole = build_held_out(batches).metrics(state, frozen)
    assert build_held_out(batches).metrics(state, frozen) == whole, "the same noise every time"
    cut = with_padding(batches[1], ("a", "", "", ""))
    losses = [build_held_out([batch]).metrics(state, frozen)["eval/loss"] for batch in (batches[0],)]
    first_of_second = build_held_out([batches[0], cut]).metrics(state, frozen)["eval/loss"]
    assert first_of_second != pytest.approx(np.mean([losses[0], whole["eval/loss"]]))
    assert set(whole) == {"eval/loss"}


def test_a_picture_shows_clips_above_their_samples(state):
    picture = build_held_out([host_batch(0, 6)]).picture(state, ToyTask().frozen_arrays())
    rows = 2 * 4  # four clips, real and generated
    assert picture.height == rows * 96 + rows * 4 + 4 * 14


def test_data_that_cannot_be_repeated_are_an_error(state):
    once = iter([host_batch(0, 4)])
    tested = build_held_out(once)
    tested.metrics(state, ToyTask().frozen_arrays())
    with pytest.raises(ValueError, match="must be an iterable that can be repeated"):
        tested.metrics(state, ToyTask().frozen_arrays())
