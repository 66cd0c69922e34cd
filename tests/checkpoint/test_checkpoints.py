import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from tests.train.toy import ToyTask, digest
from videodit.checkpoint.checkpoints import Checkpoints, checkpoint_step, restore_params
from videodit.config.optim import OptimConfig
from videodit.nn.state import abstract_arrays, abstract_module
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state, init_state


@pytest.fixture(scope="module")
def states():
    """Return an abstract state on eight devices, and a state whose average differs from its parameters."""
    cfg = OptimConfig()
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10))
    _, abstract = abstract_state(abstract_module(ToyTask().init), optimizer, mesh)
    state = init_state(ToyTask().init, optimizer, abstract, jax.random.key(0))
    ema = jax.tree.map(lambda x: 2 * x, state.params)
    return abstract, type(state)(state.step, state.params, ema, state.opt_state, state.buffers)


def at(state, step):
    step = jax.device_put(np.int32(step), state.step.sharding)
    return type(state)(step, state.params, state.ema, state.opt_state, state.buffers)


def test_the_last_checkpoint_comes_back_bit_for_bit_and_older_ones_go(tmp_path, states):
    abstract, state = states
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore(abstract) is None
        for step in (2, 4, 6):
            checkpoints.save(step, at(state, step), {"number": step})
        checkpoints.save(6, at(state, 6), {"number": "this step has been saved"})
        assert checkpoints.latest_step() == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6"]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        restored, loader_state = checkpoints.restore(abstract)
    assert loader_state == {"number": 6}
    assert digest(restored) == digest(at(state, 6))
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(restored), strict=True):
        assert shape.sharding.is_equivalent_to(array.sharding, array.ndim)


def test_an_incomplete_checkpoint_is_ignored_and_removed(tmp_path, states):
    abstract, state = states
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(2, at(state, 2), {"number": 2})
    incomplete = tmp_path / "4.orbax-checkpoint-tmp-123"
    shutil.copytree(tmp_path / "2", incomplete)
    (incomplete / "state" / "_METADATA").unlink()
    assert checkpoint_step(tmp_path) == 2
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step() == 2
        assert checkpoints.restore(abstract)[1] == {"number": 2}
    assert not incomplete.exists()


def test_weights_alone_open_on_another_number_of_devices(tmp_path, states):
    _, state = states
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, at(state, 3), None)
    for mesh in (None, make_mesh(MeshConfig(data=1, fsdp=2), jax.devices()[:2])):
        graphdef, params, buffers = abstract_arrays(abstract_module(ToyTask().init), mesh)
        for which, expected in (("ema", state.ema), ("params", state.params)):
            restored, rest = restore_params(tmp_path, checkpoint_step(tmp_path), which, params, buffers)
            assert digest(restored) == digest(expected)
            assert len(restored["up"]["kernel"].sharding.device_set) == (1 if mesh is None else 2)
        model = nnx.merge(graphdef, restored, rest)
        np.testing.assert_array_equal(model.count[...], state.buffers["count"])


def test_what_is_not_there_is_named(tmp_path, states):
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        checkpoint_step(tmp_path / "nowhere")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(3, at(states[1], 3), None)
    assert checkpoint_step(tmp_path, 3) == 3
    with pytest.raises(ValueError, match=r"no checkpoint of step 5 in .*, only of 3"):
        checkpoint_step(tmp_path, 5)
