import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.train.toy import init_model
from videodit.models.text import TextConfig, TextEncoder, position_buckets

TINY = TextConfig(vocab_size=40, width=24, depth=2, num_heads=2, head_dim=16, mlp_width=32)
encode = nnx.jit(TextEncoder.__call__)


def build_encoder(**changes):
    return nnx.merge(*init_model(lambda: TextEncoder(dataclasses.replace(TINY, **changes), rngs=nnx.Rngs(0))))


def relative_error(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


def test_buckets_are_exact_near_and_logarithmic_far():
    buckets = position_buckets(300, num_buckets=32, max_distance=128)
    before, after = buckets[299, ::-1], buckets[0]  # by distance
    assert list(before[:8]) == list(range(8))
    # 8 * 16 ** (n / 8) is where the n-th logarithmic bucket begins: exact at every other n.
    assert [before[d] for d in (8, 15, 16, 31, 32, 63, 64, 127, 128, 299)] == [8, 9, 10, 11, 12, 13, 14, 15, 15, 15]
    assert np.all(after[1:] == before[1:] + 16)


@pytest.mark.parametrize("shared_bias", [True, False])
def test_padding_changes_nothing(shared_bias):
    encoder = build_encoder(shared_bias=shared_bias)
    ids = jax.random.randint(jax.random.key(1), (2, 6), 1, 40)
    alone = encode(encoder, ids, jnp.ones((2, 6), bool))
    padded = encode(encoder, jnp.pad(ids, ((0, 0), (0, 3))), jnp.pad(jnp.ones((2, 6), bool), ((0, 0), (0, 3))))
    np.testing.assert_allclose(padded[:, :6], alone, rtol=1e-5, atol=1e-5)


def test_positions_matter():
    encoder = build_encoder()
    ids, mask = jnp.array([[3, 4, 5, 6]]), jnp.ones((1, 4), bool)
    swapped = encode(encoder, ids[:, ::-1], mask)[:, ::-1]
    assert float(jnp.abs(swapped - encode(encoder, ids, mask)).max()) > 1e-3


def test_text_without_a_token_is_finite():
    encoder = build_encoder()
    graph, state = nnx.split(encoder)
    ids, mask = jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4), bool)
    loss, grads = jax.jit(jax.value_and_grad(lambda s: nnx.merge(graph, s)(ids, mask).sum()))(state)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in [loss, *jax.tree.leaves(grads)])


def test_shared_bias_is_one_table_for_all_layers():
    shared = nnx.state(build_encoder())
    own = nnx.state(build_encoder(shared_bias=False))
    assert shared["bias"]["table"].shape == (32, 2)
    assert own["stack"]["blocks"]["bias"]["table"].shape == (2, 32, 2)


def test_bfloat16_is_close_to_float32():
    encoder = build_encoder()
    half = build_encoder(dtype="bfloat16")
    ids, mask = jnp.array([[3, 4, 5, 6]]), jnp.ones((1, 4), bool)
    found = encode(half, ids, mask)
    assert found.dtype == jnp.bfloat16
    assert relative_error(found.astype(jnp.float32), np.asarray(encode(encoder, ids, mask))) < 0.05


def test_buckets_must_split_in_four():
    with pytest.raises(ValueError, match="multiple of 4"):
        dataclasses.replace(TINY, num_buckets=30)
