import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videodit.nn.attention import Attention, attention

KEYS = jax.random.split(jax.random.key(0), 4)
Q = jax.random.normal(KEYS[0], (2, 5, 3, 8))
K, V = (jax.random.normal(key, (2, 7, 3, 8)) for key in KEYS[1:3])


def reference(q, k, v, mask=None, bias=0.0, scale=8**-0.5):
    """Compute attention of one query and head at a time, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for b, i, n in np.ndindex(*q.shape[:3]):
        allowed = np.ones(k.shape[1], bool) if mask is None else mask[b, i]
        logits = k[b, allowed, n] @ q[b, i, n] * scale + np.broadcast_to(bias, (3, 5, 7))[n, i, allowed]
        if allowed.any():
            weights = np.exp(logits - logits.max())
            out[b, i, n] = weights / weights.sum() @ v[b, allowed, n]
    return out


def test_attention_is_its_formula():
    bias = jax.random.normal(KEYS[3], (3, 5, 7))
    np.testing.assert_allclose(attention(Q, K, V), reference(Q, K, V), rtol=1e-4, atol=1e-5)
    with_bias = attention(Q, K, V, bias_NLS=bias, scale=1.0)
    np.testing.assert_allclose(with_bias, reference(Q, K, V, bias=np.asarray(bias), scale=1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("q_segments", "kv_segments"),
    [
        ([1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 3, 0]),
        (None, [1, 1, 1, 0, 0, 0, 0]),
        ([1, 1, 2, 0, 0], None),
        ([1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_queries_see_their_own_segment_and_padding_sees_nothing(q_segments, kv_segments):
    q = None if q_segments is None else jnp.array([q_segments] * 2)
    kv = None if kv_segments is None else jnp.array([kv_segments] * 2)
    mask = np.equal.outer(q_segments or [1] * 5, kv_segments or [1] * 7) & (np.array(kv_segments or [1] * 7) > 0)
    out = attention(Q, K, V, q_segments=q, kv_segments=kv)
    np.testing.assert_allclose(out, reference(Q, K, V, mask=np.stack([mask] * 2)), rtol=1e-4, atol=1e-5)


def test_gradients_stay_finite_and_inside_segments():
    kv = jnp.array([[1, 1, 1, 2, 2, 0, 0], [0] * 7])
    q = jnp.array([[1, 1, 2, 2, 0], [1, 1, 2, 2, 0]])

    def first_segment(q_BLNH, k, v):
        return jnp.sum(attention(q_BLNH, k, v, q_segments=q, kv_segments=kv)[:, :2] ** 2)

    dq, dk, dv = jax.grad(first_segment, argnums=(0, 1, 2))(Q, K, V)
    assert all(np.isfinite(d).all() for d in (dq, dk, dv))
    assert all(np.any(d[0, :2]) and not np.any(d[0, 3:]) and not np.any(d[1]) for d in (dq, dk, dv))


def test_bfloat16_follows_float32():
    half = attention(*(a.astype(jnp.bfloat16) for a in (Q, K, V)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), attention(Q, K, V), atol=0.03)


@pytest.mark.parametrize("qk_norm", ["head", "full"])
def test_normed_queries_and_keys_ignore_the_magnitude_of_their_kernels(qk_norm):
    layer = Attention(12, 3, 4, qk_norm=qk_norm, use_bias=False, rngs=nnx.Rngs(0))
    x = jax.random.normal(KEYS[3], (2, 5, 12))
    before = layer(x)
    layer.q.kernel[...] *= 5.0
    layer.k.kernel[...] *= 0.2 if qk_norm == "full" else jnp.array([1.0, 5.0, 0.5])[:, None]
    np.testing.assert_allclose(layer(x), before, rtol=1e-3, atol=1e-4)
    assert layer.q_norm.scale.shape == ((4,) if qk_norm == "head" else (12,))


def test_tokens_without_positions_are_a_set():
    layer = Attention(12, 3, 4, rngs=nnx.Rngs(0))
    x, order = jax.random.normal(KEYS[3], (1, 5, 12)), jnp.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(layer(x[:, order]), layer(x)[:, order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(x, x[:, order]), layer(x), rtol=1e-4, atol=1e-5)
