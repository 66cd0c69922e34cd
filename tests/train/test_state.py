import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tests.train.toy import ToyTask
from videodit.nn.linear import Linear
from videodit.nn.stack import Stack
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.optim import OptimConfig, learning_rate, make_optimizer
from videodit.train.state import abstract_model, abstract_state, init_state, matrices, shapes_of, split


def adam():
    cfg = OptimConfig()
    return make_optimizer(cfg, learning_rate(cfg, 10))


def test_the_abstract_state_is_the_state_without_its_numbers():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    graphdef, abstract = abstract_state(shapes_of(ToyTask().init), adam(), mesh)
    state = init_state(ToyTask().init, adam(), abstract, jax.random.key(0))
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
        assert shape.sharding.is_equivalent_to(array.sharding, array.ndim)
    assert "fsdp" in str(state.params["up"]["kernel"].sharding.spec)
    np.testing.assert_array_equal(state.params["down"]["kernel"], state.ema["down"]["kernel"])
    model = nnx.merge(graphdef, state.params, state.buffers)
    assert model(jnp.ones((1, 5, 8, 8, 3))).shape == (1, 5, 8, 8, 3)


def test_moments_lie_where_their_parameters_lie():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    _, abstract = abstract_state(shapes_of(ToyTask().init), adam(), mesh)
    for name in ("mu", "nu"):
        moments = optax.tree.get(abstract.opt_state, name)
        assert jax.tree.map(lambda x: x.sharding, moments) == jax.tree.map(lambda x: x.sharding, abstract.params)


def test_moments_of_muon_lie_where_their_parameters_lie():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))

    def init(rngs: nnx.Rngs) -> nnx.Module:
        return Stack(lambda rngs: Linear({"embed": 8}, {None: 8}, rngs=rngs), 2, remat="none", rngs=rngs)

    cfg, model = OptimConfig(kind="muon"), shapes_of(init)
    optimizer = make_optimizer(cfg, learning_rate(cfg, 10), matrices(model))
    _, abstract = abstract_state(model, optimizer, mesh)
    moments = [x for x in jax.tree.leaves(abstract.opt_state) if x.shape == (2, 8, 8)]
    assert len(moments) == 1, "a matrix under Muon has one moment"
    assert moments[0].sharding == abstract.params["blocks"]["kernel"].sharding
    assert "fsdp" in str(moments[0].sharding.spec)


def test_init_does_not_depend_on_the_mesh():
    states = []
    for config, devices in ((MeshConfig(), 1), (MeshConfig(data=2, fsdp=4), 8)):
        mesh = make_mesh(config, jax.devices()[:devices])
        _, abstract = abstract_state(shapes_of(ToyTask().init), adam(), mesh)
        states.append(init_state(ToyTask().init, adam(), abstract, jax.random.key(3)))
    for here, there in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_split_model_is_the_model():
    model = ToyTask().init(nnx.Rngs(0))
    graphdef, params, buffers = split(model)
    assert list(buffers) == ["count"]
    assert "count" not in params
    video = jnp.ones((1, 5, 8, 8, 3))
    np.testing.assert_array_equal(model(video), nnx.merge(graphdef, params, buffers)(video))
    assert abstract_model(shapes_of(ToyTask().init), None)[0] == graphdef
