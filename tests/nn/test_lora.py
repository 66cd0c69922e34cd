"""Adapters: no effect at first, the only trained parameters, and the same model once merged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.train.toy import build_noisy_model
from videodit.models.conditioning import Conditioning
from videodit.models.dit import DiT, DiTConfig
from videodit.nn.lora import Frozen, LoRAConfig, adapt, merge
from videodit.nn.state import split_model

TINY = DiTConfig(depth=2, width=24, num_heads=2, mlp_width=32, in_channels=3, text_width=5, time_freq_dim=8)
X, T = jax.random.normal(jax.random.key(1), (1, 2, 4, 4, 3)), jnp.array([0.4])
TEXT = jax.random.normal(jax.random.key(2), (1, 3, 5))


def random_model():
    return build_noisy_model(lambda: DiT(TINY, rngs=nnx.Rngs(0)), 0)


@nnx.jit
def velocity(model):
    return model(X, T, Conditioning(TEXT, jnp.ones((1, 3), bool)))


def test_an_adapter_changes_nothing_at_first_and_is_all_that_is_trained():
    plain, model = random_model(), random_model()
    adapt(model, LoRAConfig(rank=4), rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(velocity(model), velocity(plain))
    graph, params, buffers = split_model(model)
    assert {path[-1].key for path, _ in jax.tree.leaves_with_path(params)} == {"down", "up"}
    # q, k, v and out of two attentions and two layers of the MLP, each with two matrices, stacked over layers.
    assert len(jax.tree.leaves(params)) == 2 * (2 * 4 + 2)
    assert params["stack"]["blocks"]["attention"]["q"]["down"].shape == (2, 24, 4)
    assert params["stack"]["blocks"]["attention"]["out"]["up"].shape == (2, 4, 24)
    assert jax.tree.structure(buffers) == jax.tree.structure(split_model(plain)[1])

    grads = jax.jit(jax.grad(lambda params: jnp.square(velocity(nnx.merge(graph, params, buffers))).sum()))(params)
    assert all(jnp.abs(leaf).max() > 0 for path, leaf in jax.tree.leaves_with_path(grads) if path[-1].key == "up")


@pytest.mark.parametrize("targets", [LoRAConfig().targets, "patch_embedding|head.out|attention.out"])
def test_merged_it_is_the_same_model(targets):
    plain, model = random_model(), random_model()
    adapt(model, LoRAConfig(rank=3, alpha=6.0, targets=targets), rngs=nnx.Rngs(1))
    trained = jax.tree.map(
        lambda x: 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), nnx.state(model, nnx.Param)
    )
    nnx.update(model, trained)
    adapted = velocity(model)
    assert float(jnp.abs(adapted - velocity(plain)).max()) > 1e-2
    merge(model)
    assert not jax.tree.leaves(nnx.state(model, Frozen))
    assert jax.tree.structure(split_model(model)[1]) == jax.tree.structure(split_model(plain)[1])
    np.testing.assert_allclose(velocity(model), adapted, rtol=1e-4, atol=1e-5)


def test_targets_that_fit_nothing_name_what_there_is():
    with pytest.raises(ValueError, match=r"fits none of the linear maps .*stack\.blocks\.attention\.q"):
        adapt(random_model(), LoRAConfig(targets="attn1"), rngs=nnx.Rngs(1))
    with pytest.raises(ValueError, match="not a pattern"):
        LoRAConfig(targets="(")
    with pytest.raises(ValueError, match="rank is 0: it must be from 1"):
        LoRAConfig(rank=0)
