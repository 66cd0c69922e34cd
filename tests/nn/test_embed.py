import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videodit.nn.embed import grid_positions, patchify, sinusoidal, token_grid, unpatchify

PATCH = (1, 2, 3)
CLIP = jax.random.normal(jax.random.key(0), (2, 3, 4, 6, 5))


def test_unpatchify_undoes_patchify():
    x = patchify(CLIP, PATCH)
    assert x.shape == (2, 3 * 2 * 2, 1 * 2 * 3 * 5)
    np.testing.assert_array_equal(unpatchify(x, (3, 2, 2), PATCH), CLIP)


def test_tokens_are_in_raster_order_and_positions_say_so():
    x = patchify(CLIP, PATCH)
    positions = grid_positions((3, 2, 2), jnp.ones(2))
    for token in (0, 1, 2, 7, 11):
        t, y, x0 = (int(p) for p in positions[0, token])
        patch = CLIP[:, t : t + 1, 2 * y : 2 * y + 2, 3 * x0 : 3 * x0 + 3]
        np.testing.assert_array_equal(x[:, token], patch.reshape(2, -1))


def test_linear_on_patches_is_a_strided_convolution():
    kernel = jax.random.normal(jax.random.key(1), (1, 2, 3, 5, 7))
    dims = ("NDHWC", "DHWIO", "NDHWC")
    conv = jax.lax.conv_general_dilated(CLIP, kernel, PATCH, "VALID", dimension_numbers=dims)
    np.testing.assert_allclose(
        patchify(CLIP, PATCH) @ kernel.reshape(-1, 7), conv.reshape(2, -1, 7), rtol=1e-4, atol=1e-4
    )


def test_frame_rate_stretches_time_only():
    positions = grid_positions((3, 2, 2), jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(positions[1], positions[0] * jnp.array([2.0, 1.0, 1.0]))


def test_a_size_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match=r"width.*6 is not a multiple of 4"):
        token_grid((3, 4, 6), (1, 2, 4))
    with pytest.raises(ValueError, match="height"):
        patchify(CLIP, (1, 3, 3))


def test_sinusoidal_is_cosines_then_sines():
    x = sinusoidal(jnp.array([0.0, 2.5]), 6, max_period=1000.0)
    frequencies = np.array([1.0, 0.1, 0.01])
    np.testing.assert_allclose(x[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(x[1], [*np.cos(2.5 * frequencies), *np.sin(2.5 * frequencies)], rtol=1e-5)
    assert sinusoidal(jnp.zeros((2, 3)), 8).shape == (2, 3, 8)
