"""Causal convolutions: causality, chunks, and equality with one 3D convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from videodit.nn.conv import CausalConv3d, FrameCache


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (1, 1)), ((1, 3), (1, 2)), ((3, 1), (2, 1)), ((1, 1), (1, 1))])
def test_equals_one_3d_convolution(kernel, stride):
    conv = CausalConv3d(3, 5, kernel=kernel, stride=stride, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 8, 6, 6, 3))
    space = (0, 1) if stride[1] == 2 else (kernel[1] // 2, kernel[1] // 2)
    expected = lax.conv_general_dilated(
        x,
        conv.kernel[...],
        (stride[0], stride[1], stride[1]),
        [(max(kernel[0] - stride[0], 0), 0), space, space],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    np.testing.assert_allclose(conv(x, FrameCache()), expected + conv.bias[...], atol=1e-5)


def test_later_frames_change_nothing():
    conv = CausalConv3d(2, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 5, 4, 4, 2))
    changed = x.at[:, 3:].add(1.0)
    before, after = conv(x, FrameCache()), conv(changed, FrameCache())
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert jnp.abs(before[:, 3:] - after[:, 3:]).max() > 0.01


def test_chunks_equal_the_whole_clip():
    first, second = CausalConv3d(2, 4, rngs=nnx.Rngs(0)), CausalConv3d(4, 2, rngs=nnx.Rngs(1))
    x = jax.random.normal(jax.random.key(0), (1, 7, 4, 4, 2))

    def both(x, cache):
        return second(first(x, cache), cache)

    parts, tails = [], None
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        cache = FrameCache(tails)
        parts.append(both(x[:, start:stop], cache))
        tails = cache.next_tails()
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), both(x, FrameCache()), atol=1e-5)


def test_given_history_starts_the_clip():
    conv = CausalConv3d(2, 2, kernel=(3, 1), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 4, 3, 3, 2))
    history = jax.random.normal(jax.random.key(1), (1, 2, 3, 3, 2))
    whole = conv(jnp.concatenate([history, x], axis=1), FrameCache())
    np.testing.assert_allclose(conv(x, FrameCache(), history), whole[:, 2:], atol=1e-5)


def test_too_few_frames_give_none():
    conv = CausalConv3d(2, 3, kernel=(3, 1), stride=(2, 1), rngs=nnx.Rngs(0))
    x = jnp.zeros((1, 0, 4, 4, 2))
    assert conv(x, FrameCache(), jnp.zeros((1, 1, 4, 4, 2))).shape == (1, 0, 4, 4, 3)
