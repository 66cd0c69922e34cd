"""The kernel of QK-norm and RoPE against its formulas, forward and backward, and what it cannot serve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from videodit_kernels.qknorm import norm_rope

SHAPES = {
    "each head": (2, 96, 3, 128, False),
    "all heads": (2, 96, 3, 64, True),
    "a cut block": (1, 700, 2, 80, False),
    "a cut block, all heads": (1, 700, 2, 96, True),
    "few": (1, 5, 1, 64, False),
}


def problem(batch, length, heads, dim, all_heads, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    x = 2 * jax.random.normal(keys[0], (batch, length, heads, dim), dtype)
    scale = 1 + jax.random.normal(keys[1], (heads, dim) if all_heads else (dim,))
    angles = 9 * jax.random.normal(keys[2], (batch, length, dim // 2))
    return (x, scale, jnp.cos(angles), jnp.sin(angles)), jax.random.normal(keys[3], x.shape)


def results(implementation, call, weights):
    """Return the result and the gradients of x and scale."""

    def loss(x, scale):
        found = norm_rope(x, scale, *call[2:], implementation=implementation)
        return (found.astype(jnp.float32) * weights).sum(), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*call[:2])
    return [np.asarray(x, np.float32) for x in (found, *gradients)]


@pytest.mark.parametrize("name", SHAPES)
def test_the_kernel_agrees_with_its_formulas(name):
    call, weights = problem(*SHAPES[name])
    for found, expected in zip(*(results(by, call, weights) for by in ("tpu_interpret", "reference")), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("all_heads", [False, True])
def test_bfloat16_is_as_exact_as_the_formulas_in_bfloat16(all_heads):
    call, weights = problem(1, 700, 2, 128, all_heads, jnp.bfloat16)
    truth = results("reference", (call[0].astype(jnp.float32), *call[1:]), weights)
    ours, theirs = (results(by, call, weights) for by in ("tpu_interpret", "reference"))
    for found, other, true in zip(ours, theirs, truth, strict=True):
        assert np.linalg.norm(found - true) <= 1.5 * np.linalg.norm(other - true)


@pytest.mark.parametrize("all_heads", [False, True])
def test_the_formulas_turn_pairs_of_a_unit_norm(all_heads):
    (x, scale, cos, sin), _ = problem(2, 6, 3, 8, all_heads)
    found = norm_rope(x, scale, cos, sin, implementation="reference")
    x = np.asarray(x, np.float64)
    expected = x / np.sqrt(np.square(x).mean((2, 3) if all_heads else 3, keepdims=True) + 1e-6) * np.asarray(scale)
    rotated = (expected[..., :4] + 1j * expected[..., 4:]) * np.asarray(cos + 1j * sin)[:, :, None]
    np.testing.assert_allclose(found[..., :4] + 1j * found[..., 4:], rotated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "tpu"}, "'tpu' needs a TPU, and the device is a CPU; 'reference' serves the call"),
        ({"implementation": "fast"}, "implementation is one of reference, tpu, tpu_interpret, got 'fast'"),
        ({"scale": jnp.zeros(4)}, r"takes scale \[H\] or \[N, H\], .* got \(4,\), \(1, 6, 4\), \(1, 6, 4\)"),
        ({"cos": jnp.zeros((1, 6, 8))}, r"cos and sin \[B, T, H/2\]"),
    ],
)
def test_a_call_that_cannot_be_served_says_why(change, message):
    angles = jnp.zeros((1, 6, 4))
    call = {"x": jnp.zeros((1, 6, 3, 8)), "scale": jnp.zeros(8), "cos": angles, "sin": angles, **change}
    with pytest.raises(ValueError, match=message):
        norm_rope(**call)
