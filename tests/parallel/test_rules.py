import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from videodit.models.dit import DiT, DiTConfig
from videodit.models.text import TextConfig, TextEncoder
from videodit.models.vae import VAE, VAEConfig
from videodit.nn.linear import Linear
from videodit.nn.param import get_dims
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import constrain, map_per_device, mesh_axes, shard_tree, sharding_for


def mesh(data=2, fsdp=4):
    return make_mesh(MeshConfig(data=data, fsdp=fsdp))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiT(DiTConfig(depth=1, width=8, num_heads=2, mlp_width=8), rngs=nnx.Rngs(0)),
        lambda: TextEncoder(TextConfig(8, 8, 1, 2, 4, 8), rngs=nnx.Rngs(0)),
        lambda: VAE(VAEConfig(channels=(4, 4), strides=((2, 2),), time_kernel=(3, 3)), rngs=nnx.Rngs(0)),
    ],
)
def test_every_parameter_of_every_model_has_rules_that_do_not_collide(make):
    named = get_dims(nnx.state(nnx.eval_shape(make), nnx.Param))
    every = jax.tree.leaves(named, is_leaf=lambda node: isinstance(node, tuple))
    assert every
    for dims in every:
        mesh_axes(dims)


def test_two_dimensions_that_want_one_axis_are_refused():
    with pytest.raises(ValueError, match=r"'batch' and 'embed' of \('batch', 'embed'\) both want mesh axis 'fsdp'"):
        mesh_axes(("batch", "embed"))


def test_a_name_without_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"no rule for the dimension 'wings' .* known are batch"):
        mesh_axes(("wings",))


def test_a_size_that_does_not_divide_is_refused_with_sizes_that_do():
    with pytest.raises(ValueError, match=r"'batch' of size 12 does not divide over mesh axes data=2 x fsdp=4; 8 or 16"):
        sharding_for(("batch", None), (12, 3), mesh())


def test_variables_follow_the_rules_and_all_else_is_copied():
    state = nnx.state(nnx.eval_shape(lambda: Linear({"embed": 8}, {"mlp": 6}, rngs=nnx.Rngs(0))))
    shardings = shard_tree({"layer": state, "count": jax.ShapeDtypeStruct((), jnp.int32)}, mesh())
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings, is_leaf=lambda node: hasattr(node, "spec"))
    layer = nnx.to_pure_dict(specs["layer"])
    assert layer["kernel"] == PartitionSpec(("fsdp", "ring", "ulysses"), ("tensor",))
    assert layer["bias"] == PartitionSpec(("tensor",))
    assert specs["count"] == PartitionSpec()


def test_a_parameter_that_does_not_divide_is_named():
    state = nnx.state(nnx.eval_shape(lambda: Linear({"embed": 6}, {"mlp": 8}, rngs=nnx.Rngs(0))))
    with pytest.raises(ValueError, match=r"kernel.*'embed' of size 6 does not divide"):
        shard_tree({"up": state}, mesh())


def test_a_constraint_lays_out_under_a_mesh_and_does_nothing_without_one():
    x = jnp.ones((16, 3))
    assert constrain(x, ("batch", None)) is x
    with jax.set_mesh(mesh()):
        y = jax.jit(lambda x: constrain(x, ("batch", None)))(x)
    assert y.addressable_shards[0].data.shape == (2, 3)
    assert len({shard.device for shard in y.addressable_shards}) == 8


@pytest.mark.parametrize("batch", [16, 3])
def test_a_function_on_every_device_gives_what_it_gives_on_one(batch):
    """With gradients, and whether or not the batch divides over the devices."""
    shapes = []

    def fn(x, scale, absent):
        assert absent is None
        shapes.append(x.shape)
        return jnp.cumsum(x, axis=1) * scale

    def loss(x, scale):
        dims = ("batch", None, "heads")
        return jnp.sin(map_per_device(fn, (dims, (None,), ("batch",)), dims)(x, scale, None)).sum()

    x, scale = jax.random.normal(jax.random.key(0), (batch, 5, 2)), jnp.array([2.0, 3.0])
    expected = jax.value_and_grad(loss, (0, 1))(x, scale)
    assert set(shapes) == {(batch, 5, 2)}
    with jax.set_mesh(mesh()):
        found = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, scale)
    assert shapes[-1] == (2 if batch == 16 else batch, 5, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
