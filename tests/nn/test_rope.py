import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.nn.rope import apply_rope, default_split, paired_order, rope_tables

SPLIT = (4, 2, 2)
KEYS = jax.random.split(jax.random.key(0), 3)
Q, K = (jax.random.normal(key, (1, 5, 2, 8)) for key in KEYS[:2])
POSITIONS = 10 * jax.random.normal(KEYS[2], (1, 5, 3))


def scores(positions, q=Q, k=K):
    tables = rope_tables(positions, SPLIT)
    return jnp.einsum("blnh,bsnh->bnls", apply_rope(q, *tables), apply_rope(k, *tables))


@pytest.mark.parametrize(
    ("head_dim", "split"),
    [(128, (44, 42, 42)), (72, (24, 24, 24)), (64, (24, 20, 20)), (48, (16, 16, 16)), (24, (8, 8, 8))],
)
def test_default_split_is_wans(head_dim, split):
    assert default_split(head_dim) == split


def test_only_differences_of_position_matter():
    shift = jnp.array([3.5, -2.0, 7.25])
    np.testing.assert_allclose(scores(POSITIONS + shift), scores(POSITIONS), atol=1e-4)
    assert float(jnp.abs(scores(2 * POSITIONS) - scores(POSITIONS)).max()) > 0.1


@pytest.mark.parametrize("axis", range(3))
def test_every_axis_of_position_matters(axis):
    moved = POSITIONS.at[:, 0, axis].add(1.0)
    assert float(jnp.abs(scores(moved) - scores(POSITIONS)).max()) > 1e-2


def test_rotation_keeps_lengths_and_the_origin_is_the_identity():
    rotated = apply_rope(Q, *rope_tables(POSITIONS, SPLIT))
    np.testing.assert_allclose(jnp.linalg.norm(rotated, axis=-1), jnp.linalg.norm(Q, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(apply_rope(Q, *rope_tables(jnp.zeros((1, 5, 3)), SPLIT)), Q)


def test_frequencies_fall_from_one_radian_a_token():
    cos, sin = rope_tables(jnp.ones((1, 1, 3)), SPLIT, theta=100.0)
    np.testing.assert_allclose(jnp.arctan2(sin, cos)[0, 0], [1.0, 0.1, 1.0, 1.0], rtol=1e-6)


def test_neighboring_pairs_are_the_same_rotation_in_another_order():
    cos, sin = rope_tables(POSITIONS, SPLIT)
    z = jax.lax.complex(Q[..., 0::2], Q[..., 1::2]) * jax.lax.complex(cos, sin)[:, :, None]
    interleaved = jnp.stack([z.real, z.imag], axis=-1).reshape(Q.shape)
    order = paired_order(8)
    np.testing.assert_allclose(apply_rope(Q[..., order], cos, sin), interleaved[..., order], rtol=1e-5, atol=1e-6)


def test_low_precision_heads_are_rotated_in_float32():
    tables = rope_tables(1000 + POSITIONS, SPLIT)
    half = apply_rope(Q.astype(jnp.bfloat16), *tables)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), apply_rope(Q, *tables), atol=0.03)
