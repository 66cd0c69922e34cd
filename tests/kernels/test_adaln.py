"""The adaLN kernel against its formulas, forward and backward, and what it cannot serve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from videodit_kernels.adaln import adaln


def problem(batch, length, width, branch, gated, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 7)
    x, y = (2 * jax.random.normal(key, (batch, length, width), dtype) + 1 for key in keys[:2])
    scale, shift, gate = (jax.random.normal(key, (batch, 1, width)) for key in keys[2:5])
    call = {"x": x, "scale": scale, "shift": shift}
    call |= {"y": y} if branch else {}
    call |= {"gate": gate} if gated else {}
    return call, [jax.random.normal(key, x.shape) for key in keys[5:]]


def results(implementation, call, weights):
    def loss(call):
        found = adaln(**call, implementation=implementation)
        return sum((x.astype(jnp.float32) * w).sum() for x, w in zip(found, weights, strict=True)), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(call)
    return dict(zip(("r", "out"), found, strict=True)) | gradients


SHAPES = [(2, 96, 128, True, True), (1, 700, 1024, True, False), (2, 37, 256, False, False), (1, 5, 128, True, True)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_agrees_with_its_formulas(shape):
    call, weights = problem(*shape)
    found, expected = (results(name, call, weights) for name in ("tpu_interpret", "reference"))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=2e-4, atol=2e-4 * np.abs(expected[name]).max(), err_msg=name
        )


def test_bfloat16_is_as_exact_as_the_formulas_in_bfloat16():
    call, weights = problem(1, 700, 1024, True, True, jnp.bfloat16)
    exact = {name: x.astype(jnp.float32) for name, x in call.items()}
    truth = results("reference", exact, weights)
    ours, theirs = (results(name, call, weights) for name in ("tpu_interpret", "reference"))
    for name in truth:
        errors = [np.linalg.norm(np.asarray(x[name], np.float32) - truth[name]) for x in (ours, theirs)]
        assert errors[0] <= 1.5 * errors[1], name


def test_the_formulas_are_a_layer_norm_after_a_gated_residual():
    call, _ = problem(2, 6, 128, True, True)
    r, out = adaln(**call, implementation="reference")
    expected = np.asarray(call["x"] + call["gate"] * call["y"], np.float64)
    np.testing.assert_allclose(r, expected, rtol=1e-5, atol=1e-5)
    normal = (expected - expected.mean(-1, keepdims=True)) / np.sqrt(expected.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(out, normal * (1 + call["scale"]) + call["shift"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "tpu"}, "'tpu' needs a TPU, and the device is a CPU; 'reference' serves the call"),
        ({"implementation": "fast"}, "implementation is one of reference, tpu, tpu_interpret, got 'fast'"),
        ({"scale": jnp.zeros((1, 8, 128)), "implementation": "tpu_interpret"}, "one modulation a clip"),
        ({"y": jnp.zeros((1, 8, 128), jnp.bfloat16), "implementation": "tpu_interpret"}, "of one type, got float32"),
        ({"gate": jnp.zeros((1, 1, 128))}, "a gate is for y, and there is no y"),
    ],
)
def test_a_call_that_cannot_be_served_says_why(change, message):
    row = jnp.zeros((1, 1, 128))
    with pytest.raises(ValueError, match=message):
        adaln(**{"x": jnp.zeros((1, 8, 128)), "scale": row, "shift": row, **change})
