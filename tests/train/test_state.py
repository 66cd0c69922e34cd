import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from tests.train.toy import ToyTask
from videodit.config.optim import OptimConfig
from videodit.nn.linear import Linear
from videodit.nn.stack import Stack
from videodit.nn.state import abstract_arrays, abstract_module, matrix_axes_of, split_model
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.state import abstract_state, init_state


def adam():
    cfg = OptimConfig()
    return make_optimizer(cfg, learning_rate(cfg, 10))


def test_the_abstract_state_is_the_state_without_its_numbers():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    graphdef, abstract = abstract_state(abstract_module(ToyTask().init), adam(), mesh)
    state = init_state(ToyTask().init, adam(), abstract, jax.random.key(0))
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
        assert shape.sharding.is_equivalent_to(array.sharding, array.ndim)
    assert "fsdp" in str(state.params["up"]["kernel"].sharding.spec)
    np.testing.assert_array_equal(state.params["down"]["kernel"], state.ema["down"]["kernel"])
    model = nnx.merge(graphdef, state.params, state.buffers)
    assert model(jnp.ones((1, 5, 8, 8, 3))).shape == (1, 5, 8, 8, 3)


def test_moments_are_sharded_like_their_parameters():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    _, abstract = abstract_state(abstract_module(ToyTask().init), adam(), mesh)
    for name in ("mu", "nu"):
        moments = optax.tree.get(abstract.opt_state, name)
        assert jax.tree.map(lambda x: x.sharding, moments) == jax.tree.map(lambda x: x.sharding, abstract.params)


def test_moments_of_muon_are_sharded_like_their_parameters():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))

    def init(rngs: nnx.Rngs) -> nnx.Module:
        return Stack(lambda rngs: Linear({"embed": 8}, {None: 8}, rngs=rngs), 2, remat="none", rngs=rngs)

    cfg, model = OptimConfig(kind="muon"), abstract_module(init)
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10), matrix_axes_of(model))
    _, abstract = abstract_state(model, optimizer, mesh)
    moments = [x for x in jax.tree.leaves(abstract.opt_state) if x.shape == (2, 8, 8)]
    assert len(moments) == 1, "a matrix under Muon has one moment"
    assert moments[0].sharding == abstract.params["blocks"]["kernel"].sharding
    assert "fsdp" in str(moments[0].sharding.spec)


def test_factored_moments_are_sharded_like_the_remaining_dims_of_their_parameters():
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))

    def init(rngs: nnx.Rngs) -> nnx.Module:
        return Stack(lambda rngs: Linear({"embed": 128}, {"mlp": 256}, rngs=rngs), 2, remat="none", rngs=rngs)

    cfg, model = OptimConfig(kind="adafactor"), abstract_module(init)
    _, abstract = abstract_state(model, make_optimizer(cfg, learning_rate(cfg, 10)), mesh)
    specs = {x.shape: x.sharding.spec for x in jax.tree.leaves(abstract.opt_state) if x.size > 512}
    fsdp_axes = ("fsdp", "ring", "ulysses")
    assert specs == {}
    small = {x.shape: x.sharding.spec for x in jax.tree.leaves(abstract.opt_state) if x.ndim == 2 and x.size <= 512}
    assert small[2, 128] == PartitionSpec(None, fsdp_axes)
    assert small[2, 256] == PartitionSpec(None, ("tensor",))


@pytest.mark.parametrize("cfg", [OptimConfig(params="bfloat16", moments="bfloat16"), OptimConfig(kind="adafactor")])
def test_a_state_can_be_stored_in_less(cfg):
    mesh, optimizer = make_mesh(MeshConfig()), make_optimizer(cfg, learning_rate(cfg, 10))
    _, abstract = abstract_state(abstract_module(ToyTask().init), optimizer, mesh, stored=cfg.params, average=False)
    state = init_state(ToyTask().init, optimizer, abstract, jax.random.key(0))
    assert state.ema is None
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype(cfg.params)}
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)


def test_init_does_not_depend_on_the_mesh():
    states = []
    for config, devices in ((MeshConfig(), 1), (MeshConfig(data=2, fsdp=4), 8)):
        mesh = make_mesh(config, jax.devices()[:devices])
        _, abstract = abstract_state(abstract_module(ToyTask().init), adam(), mesh)
        states.append(init_state(ToyTask().init, adam(), abstract, jax.random.key(3)))
    for here, there in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_split_model_is_the_model():
    model = ToyTask().init(nnx.Rngs(0))
    graphdef, params, buffers = split_model(model)
    assert list(buffers) == ["count"]
    assert "count" not in params
    video = jnp.ones((1, 5, 8, 8, 3))
    np.testing.assert_array_equal(model(video), nnx.merge(graphdef, params, buffers)(video))
    assert abstract_arrays(abstract_module(ToyTask().init), None)[0] == graphdef
