from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.train.toy import ToyTask, host_batch, toy_run, with_arrays, with_padding
from videodit.config.optim import OptimConfig
from videodit.nn.state import abstract_module, matrix_axes_of, shardings_of
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.batch import to_devices
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state, init_state
from videodit.train.step import make_train_step

RUN = toy_run(ema=0.5, optim=OptimConfig(lr=1e-2, schedule="constant", clip=0.0))


def prepare(run):
    """Return a new state on the host, and a function that runs the compiled step on two devices."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:2])
    schedule = learning_rate(run.optim, run.steps)
    optimizer = make_optimizer(run.optim, schedule, matrix_axes_of(abstract_module(ToyTask().init)))
    state_options = {"stored": run.optim.params, "average": run.ema > 0}
    graphdef, abstract = abstract_state(abstract_module(ToyTask().init), optimizer, mesh, **state_options)
    state = init_state(ToyTask().init, optimizer, abstract, jax.random.key(run.seed))
    step = make_train_step(run, ToyTask(), graphdef, optimizer, schedule, shardings_of(abstract))
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
    return jax.device_get(state), lambda state, host: step(state, to_devices(host, sharding), ToyTask().frozen_arrays())


@pytest.fixture(scope="module")
def prepared():
    return prepare(RUN)


def test_micro_batches_are_the_batch(prepared):
    host = host_batch(0, 8)
    host = with_padding(host, (*host.clip_ids[:5], "", "", ""))  # parts of a batch may hold fewer real clips
    state, step = prepared
    whole, metrics = step(state, host)
    state, step = prepare(replace(RUN, optim=replace(RUN.optim, micro_batches=4)))
    cut, cut_metrics = step(state, host)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, cut_metrics[name], rtol=1e-5, err_msg=name)
    for here, there in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(cut.opt_state), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-7)


def test_a_step_is_a_function_of_its_number_and_its_batch(prepared):
    state, step = prepared
    after, metrics = step(state, host_batch(0, 8))
    again, same = step(state, host_batch(0, 8))
    assert jax.tree.all(jax.tree.map(np.array_equal, (after, metrics), (again, same)))
    _, later = step(replace(state, step=np.int32(7)), host_batch(0, 8))
    assert later["loss"] != metrics["loss"], "another step has other noise"


def test_padding_entries_of_a_batch_are_ignored(prepared):
    state, step = prepared
    host = host_batch(0, 8)
    _, full = step(state, host)
    three = with_padding(host, (*host.clip_ids[:3], *[""] * 5))
    other = np.where(np.arange(8)[:, None, None, None, None] < 3, host.arrays.video, 9)
    (_, here), (_, there) = step(state, three), step(state, with_arrays(three, video=other.astype(np.float32)))
    assert here["loss"] == there["loss"] != full["loss"]
    assert here["grad_norm"] == there["grad_norm"]


def test_the_state_moves_as_it_says(prepared):
    before, step = prepared
    after, metrics = step(before, host_batch(0, 8))
    assert int(after.step) == 1
    assert metrics["finite"] == 1
    assert float(metrics["lr"]) == pytest.approx(RUN.optim.lr)
    old, new, ema = (np.asarray(tree["up"]["kernel"]) for tree in (before.ema, after.params, after.ema))
    assert not np.array_equal(old, new)
    decay = 0.1  # of the first step: 1 / 10 is below 0.5
    np.testing.assert_allclose(ema, decay * old + (1 - decay) * new, atol=1e-7)
    np.testing.assert_array_equal(after.buffers["count"], before.buffers["count"])


@pytest.mark.parametrize(
    "kind", ["muon", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("adamw", "adafactor"))]
)
def test_it_learns_in_less_memory_too(kind):
    """Without an average, stored in bfloat16, it learns as it does in float32."""

    def learn(**optim):
        run = replace(RUN, ema=0.0, optim=replace(RUN.optim, kind=kind, lr=1e-2, **optim))
        state, step = prepare(run)
        size, losses = sum(x.nbytes for x in jax.tree.leaves(state)), []
        for _ in range(20):
            state, metrics = step(state, host_batch(0, 8))
            losses.append(float(metrics["loss"]))
        assert state.ema is None
        assert sum(x.nbytes for x in jax.tree.leaves(state)) == size
        return size, losses

    (full, exact), (less, found) = learn(), learn(params="bfloat16", moments="bfloat16")
    assert less < 0.52 * full
    assert exact[-1] < 0.8 * exact[0]
    np.testing.assert_allclose(found, exact, rtol=0.1)


def test_a_batch_that_is_no_number_is_reported(prepared):
    state, step = prepared
    host = host_batch(0, 8)
    video = np.where(np.arange(8)[:, None, None, None, None] == 2, np.nan, host.arrays.video)
    _, metrics = step(state, with_arrays(host, video=video.astype(np.float32)))
    assert metrics["finite"] == 0
    assert np.isnan(metrics["loss"])
