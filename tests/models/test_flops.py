import dataclasses
import math

import jax
import jax.extend
import jax.numpy as jnp
import pytest
from flax import nnx

from videodit.models.conditioning import Conditioning
from videodit.models.dit import SIZES, DiT, DiTConfig
from videodit.models.flops import Cost, _attention, _linear, dit_cost, text_cost
from videodit.models.text import TextConfig, TextEncoder

TOY = dataclasses.replace(SIZES["toy"], width=48, mlp_width=80, depth=3)
TEXT = TextConfig(vocab_size=50, width=24, depth=2, num_heads=2, head_dim=16, mlp_width=40)


def count_params(make):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(make))))


def count_macs(jaxpr):
    """Count the multiply-accumulates of all matrix products of a program; those in loops count every time they run."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracted)
        repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            total += repeats * count_macs(inner)
    return total


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_the_model(size):
    cfg = SIZES[size]
    assert dit_cost(cfg, 0, 0).params == count_params(lambda: DiT(cfg, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mlp": "gated", "qk_norm": "full"},
        {"qk_norm": "none", "cross_attn_norm": True, "in_channels": 5},
        {"pooled_text": True},
    ],
)
def test_macs_are_those_of_the_program(options):
    cfg = dataclasses.replace(TOY, **options)
    model = nnx.eval_shape(lambda: DiT(cfg, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    args = (
        jax.ShapeDtypeStruct((1, 3, 4, 8, cfg.in_channels), jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
        Conditioning(jax.ShapeDtypeStruct((1, 7, 128), jnp.float32), jax.ShapeDtypeStruct((1, 7), jnp.bool_)),
    )
    program = jax.make_jaxpr(lambda state, *args: nnx.merge(graph, state)(*args))(state, *args)
    cost = dit_cost(cfg, tokens=24, text_tokens=7)
    assert count_macs(program.jaxpr) == cost.macs
    assert cost.params == count_params(lambda: DiT(cfg, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("shared_bias", [True, False])
def test_text_encoder_is_counted(shared_bias):
    cfg = dataclasses.replace(TEXT, shared_bias=shared_bias)
    graph, state = nnx.split(nnx.eval_shape(lambda: TextEncoder(cfg, rngs=nnx.Rngs(0))))
    ids, mask = jax.ShapeDtypeStruct((1, 9), jnp.int32), jax.ShapeDtypeStruct((1, 9), jnp.bool_)
    program = jax.make_jaxpr(lambda state, *args: nnx.merge(graph, state)(*args))(state, ids, mask)
    assert count_macs(program.jaxpr) == text_cost(cfg, 9).macs
    assert text_cost(cfg, 9).params == count_params(lambda: TextEncoder(cfg, rngs=nnx.Rngs(0)))


def test_training_costs_three_forward_passes():
    graph, state = nnx.split(nnx.eval_shape(lambda: TextEncoder(TEXT, rngs=nnx.Rngs(0))))
    x, mask = jax.ShapeDtypeStruct((1, 9, 24), jnp.float32), jnp.ones((1, 9), bool)

    def loss(state, x):
        stack = nnx.merge(graph, state).stack
        return stack(x, mask, jnp.zeros((9, 9), jnp.int32), jnp.zeros((2, 9, 9))).sum()

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(state, x)
    cost = text_cost(TEXT, 9)
    assert 2 * count_macs(program.jaxpr) == cost.train_flops == 3 * cost.forward_flops


def test_sizes_are_those_of_the_largest_open_models():
    assert dit_cost(SIZES["1.3b"], 0, 0).params == 1_418_996_800
    assert dit_cost(SIZES["14b"], 0, 0).params == 14_288_491_584


def class_dit_macs(cfg: DiTConfig, tokens: int = 256, patch_features: int = 16) -> int:
    """Count MACs of the original class-conditional DiT of this depth and width (Peebles and Xie 2023, table 4).

    It has adaLN in every block from the sum of time and class, no cross-attention, and predicts variances too. The
    published figures count every linear layer, both products of attention, and one MAC per element for each modulated
    norm (`x * scale + shift`); the defaults are 256 x 256 images: latents of 32 x 32 x 4 in patches of 2 x 2.
    """
    width = cfg.width
    modulated_norm = Cost(macs=tokens * width)
    block = (
        _attention(width, width, tokens, tokens)
        + _linear(width, cfg.mlp_width, tokens)
        + _linear(cfg.mlp_width, width, tokens)
        + _linear(width, 6 * width, 1)
        + 2 * modulated_norm
    )
    time = _linear(cfg.time_freq_dim, width, 1) + _linear(width, width, 1)
    head = _linear(width, 2 * width, 1) + modulated_norm + _linear(width, 2 * patch_features, tokens)
    return (_linear(patch_features, width, tokens) + time + cfg.depth * block + head).macs


@pytest.mark.parametrize(("size", "published"), [("S", 6.06), ("B", 23.01), ("L", 80.71), ("XL", 118.64)])
def test_the_published_table_is_reproduced(size, published):
    assert round(class_dit_macs(SIZES[size]) / 1e9, 2) == published
