"""Every implementation against the reference: values, log-sum-exp and gradients, over the shared specs."""

import functools
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from videodit_kernels.attention import (
    FrameCausal,
    LocalWindow,
    SequenceOffsets,
    attention,
    gpu,
    gradients,
    merge,
    reference,
    splash,
    xla,
)
from videodit_kernels.attention.masks import materialize
from videodit_kernels.attention.specs import SMALL, Spec
from videodit_kernels.attention.tpu import op
from videodit_kernels.attention.tpu.common import Blocks

# Small blocks, so that small problems have several.
BLOCKS = Blocks(256, 256, 128, 128, 128)


def tpu(*args, bounded=None, interpret=True, **kwargs):
    return op.attention(*args, blocks=BLOCKS, bounded=bounded, interpret=interpret, **kwargs)


def results(fn, spec: Spec, dtype=jnp.float32, gain=1.0):
    """Return the output, the log-sum-exp and the gradients of a sum over both, in float32."""
    q, k, v = spec.arrays(dtype, gain=gain)
    keys = jax.random.split(jax.random.key(7), 2)
    weights = jax.random.normal(keys[0], q.shape), jax.random.normal(keys[1], q.shape[:3])

    @jax.jit
    def run(q, k, v, ids):
        def loss(q, k, v):
            out, lse = fn(q, k, v, mask=spec.mask, segments=ids, scale=spec.dim**-0.5)
            finite_lse = jnp.where(jnp.isfinite(lse), lse, 0.0)
            return (out.astype(jnp.float32) * weights[0]).sum() + (finite_lse * weights[1]).sum(), (out, lse)

        (_, values), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
        return values + gradients

    return [np.asarray(x, np.float32) for x in run(q, k, v, spec.segment_ids())]


def error(found, expected) -> float:
    """Return the largest difference in units of the largest value; infinities must agree."""
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    found, expected = (np.where(np.isfinite(x), x, 0) for x in (found, expected))
    return np.abs(found - expected).max() / max(1e-6, np.abs(expected).max())


def test_the_reference_is_softmax_with_the_mask_written_out():
    spec = Spec("", 21, 35, heads=4, kv_heads=2, dim=8, mask=FrameCausal(5, window=3, start=2), segments=2, batch=2)
    q, k, v = spec.arrays()
    q_ids, kv_ids = spec.segment_ids()
    out, lse = reference.attention(q, k, v, mask=spec.mask, segments=(q_ids, kv_ids), scale=0.3)
    mask_TS = materialize(spec.mask, 21, 35)
    for b, t, n in np.ndindex(2, 21, 4):
        allowed = mask_TS[t] & np.asarray(q_ids[b, t] == kv_ids[b])
        logits = 0.3 * np.asarray(k[b, allowed, n // 2], np.float64) @ np.asarray(q[b, t, n], np.float64)
        weights = np.exp(logits)
        expected = weights @ np.asarray(v[b, allowed, n // 2]) / weights.sum() if allowed.any() else np.zeros(8)
        np.testing.assert_allclose(out[b, t, n], expected, atol=1e-5)
        np.testing.assert_allclose(
            lse[b, t, n], np.log(weights.sum()) if allowed.any() else -np.inf, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_the_kernels_agree_with_the_reference(spec):
    expected = results(reference.attention, spec)
    for found, true in zip(results(tpu, spec), expected, strict=True):
        assert error(found, true) <= 1e-5


@pytest.mark.parametrize("name", ["packed frames", pytest.param("local", marks=pytest.mark.slow)])
def test_a_deep_matrix_unit_masks_in_the_product(name):
    (spec,) = (spec for spec in SMALL if spec.name == name)
    for bounded, gain in ((True, 1.0), (False, 40.0)):
        expected = results(reference.attention, spec, gain=gain)
        found = results(lambda *a, b=bounded, **k: tpu(*a, bounded=b, chip="v6e", **k), spec, gain=gain)
        for one, true in zip(found, expected, strict=True):
            assert error(one, true) <= 1e-5 * max(1.0, gain / 10)


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: spec.name)
def test_xla_agrees_with_the_reference(spec):
    for found, true in zip(results(xla.attention, spec), results(reference.attention, spec), strict=True):
        assert error(found, true) <= 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "packed cross",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("local", "full", "grouped", "streaming")),
    ],
)
def test_bfloat16_is_as_exact_as_the_reference_in_bfloat16(name):
    (spec,) = (spec for spec in SMALL if spec.name == name)

    def exact(q, k, v, **kwargs):
        return reference.attention(*(x.astype(jnp.float32) for x in (q, k, v)), **kwargs)

    truth = results(exact, spec, jnp.bfloat16)
    ours, theirs = (results(fn, spec, jnp.bfloat16) for fn in (tpu, reference.attention))
    for found, other, true in zip(ours, theirs, truth, strict=True):
        norm = [np.linalg.norm(np.where(np.isfinite(true), x - true, 0)) for x in (found, other)]
        assert norm[0] <= 1.5 * norm[1] + 1e-4 * np.linalg.norm(np.where(np.isfinite(true), true, 0))


@pytest.mark.parametrize(
    "name", ["packed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "streaming", "local"))]
)
def test_softmax_without_a_bound_is_exact_however_large_the_logits(name):
    (spec,) = (spec for spec in SMALL if spec.name == name)
    for gain in (1.0, 40.0):
        expected = results(reference.attention, spec, gain=gain)
        for found, true in zip(
            results(lambda *a, **k: tpu(*a, bounded=False, **k), spec, gain=gain), expected, strict=True
        ):
            # The logits themselves have this error in float32.
            assert error(found, true) <= 1e-5 * max(1.0, gain / 10)


def test_the_maximum_that_was_met_first_need_not_be_near_the_true_one():
    # Keys grow along the sequence: later blocks exceed every earlier reference by far more than the limit.
    q, k, v = Spec("", 256, 1024, dim=64).arrays()
    for ramp in (jnp.linspace(0.1, 60.0, 1024), jnp.linspace(60.0, 0.1, 1024)):
        growing_k = k * ramp[None, :, None, None]
        expected = reference.attention(q, growing_k, v, mask=None, segments=None, scale=1.0)
        for found, true in zip(tpu(q, growing_k, v, mask=None, segments=None, scale=1.0), expected, strict=True):
            assert error(np.asarray(found), np.asarray(true)) <= 1e-4


def test_the_bound_is_computed_from_the_norms():
    q, k, v = Spec("", 256, 256, dim=64).arrays()
    # Logits near 1000: relative to 0 they overflow, so the bounded kernel returns infinity.
    far = [np.asarray(x) for x in tpu(30 * q, 30 * k, v, mask=None, segments=None, scale=1.0)]
    assert all(np.isfinite(x).all() for x in far)
    overflown = tpu(30 * q, 30 * k, v, mask=None, segments=None, scale=1.0, bounded=True)
    assert not np.isfinite(np.asarray(overflown[0])).all()


@pytest.mark.slow
def test_long_sequences_are_cut_into_runs_of_queries(monkeypatch):
    monkeypatch.setattr(op, "MOST_QUERIES", 512)
    for spec in (Spec("", 1100, 300, heads=2), Spec("", 1100, 1100, mask=FrameCausal(110, window=4), segments=2)):
        expected = results(reference.attention, spec)
        for found, true in zip(results(tpu, spec), expected, strict=True):
            assert error(found, true) <= 1e-5


@pytest.mark.slow
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.sampled_from([64, 80]),
    st.none() | st.builds(FrameCausal, st.integers(20, 200), st.none() | st.integers(1, 3), st.integers(0, 2)),
    st.none() | st.integers(1, 4),
)
@settings(max_examples=8, deadline=None)
def test_any_shape_and_mask(q_len, kv_len, heads, dim, mask, segments):
    spec = Spec("", q_len, kv_len, *heads, dim, mask, segments)
    for found, true in zip(results(tpu, spec), results(reference.attention, spec), strict=True):
        assert error(found, true) <= 1e-5


@pytest.mark.parametrize("implementation", [pytest.param("reference", marks=pytest.mark.slow), "tpu_interpret"])
def test_parts_of_the_keys_merge_into_the_whole_forward_and_backward(implementation):
    q, k, v = Spec("", 256, 384, heads=2, kv_heads=1).arrays()
    weights = jax.random.normal(jax.random.key(3), q.shape)

    def loss(cuts, q, k, v):
        parts = [
            attention(q, k[:, a:b], v[:, a:b], return_lse=True, implementation=implementation)
            for a, b in itertools.pairwise(cuts)
        ]
        return (merge(*parts)[0] * weights).sum()

    gradient = jax.jit(jax.value_and_grad(loss, (1, 2, 3)), static_argnums=0)
    whole, cut = (gradient(cuts, q, k, v) for cuts in ((0, 384), (0, 128, 300, 384)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), whole, cut)


@pytest.mark.parametrize("implementation", ["reference", "tpu_interpret"])
@pytest.mark.parametrize("mask", [None, FrameCausal(48, window=3, sinks=1)])
def test_gradients_through_parts_of_the_keys_sum_to_the_whole(implementation, mask):
    """Grouped heads, packed clips and padding: some queries have no key at all."""
    q, k, v = Spec("", 300, 420, heads=4, kv_heads=2).arrays()
    ids = jnp.arange(300)[None] // 128, jnp.minimum(jnp.arange(420)[None] // 150, 1)
    d_out = jax.random.normal(jax.random.key(3), q.shape)

    @jax.jit
    def whole(q, k, v):
        def outputs(q, k, v):
            options = {"mask": mask, "segment_ids": ids, "implementation": "reference"}
            return attention(q, k, v, **options, return_lse=True)

        out, back, lse = jax.vjp(outputs, q, k, v, has_aux=True)
        return back(d_out), lse, (out * d_out).sum(-1)

    expected, lse, delta = whole(q, k, v)

    def part(first, size):
        at = slice(first, first + size)
        offsets = SequenceOffsets(0, first, 300, 420)
        options = {"mask": mask, "offsets": offsets, "segment_ids": (ids[0], ids[1][:, at])}
        return gradients(q, k[:, at], v[:, at], d_out, lse, delta, **options, implementation=implementation)

    (dq, dk, dv), (dq2, dk2, dv2) = jax.jit(lambda: (part(0, 130), part(130, 290)))()
    found = dq + dq2, *(jnp.concatenate(pair, axis=1) for pair in ((dk, dk2), (dv, dv2)))
    for actual, true in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, true, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["reference", "xla", "tpu_interpret"])
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(FrameCausal(48, window=3, sinks=1), marks=pytest.mark.slow),
        LocalWindow((4, 12, 10), (2, 4, 5), (3, 7, 5)) & FrameCausal(240),
    ],
)
def test_a_ring_s_parts_are_masked_by_their_offsets(implementation, mask):
    """Forward and backward, the offsets traced, as on the devices of a ring."""
    q, k, v = Spec("", 480, 480).arrays()
    weights = jax.random.normal(jax.random.key(3), q.shape)

    @jax.jit
    def ring(firsts, q, k, v):
        def part(q_first, kv_first, q, k, v):
            cut = [
                jax.lax.dynamic_slice_in_dim(x, first, 240, axis=1)
                for x, first in ((q, q_first), (k, kv_first), (v, kv_first))
            ]
            offsets = SequenceOffsets(q_first, kv_first, 480, 480)
            return attention(*cut, mask=mask, offsets=offsets, return_lse=True, implementation=implementation)

        def loss(*tokens):
            rows = [merge(*(part(q_first, kv_first, *tokens) for kv_first in firsts))[0] for q_first in firsts]
            return (jnp.concatenate(rows, axis=1) * weights).sum()

        return jax.value_and_grad(loss, (0, 1, 2))(q, k, v)

    def whole(q, k, v):
        return (attention(q, k, v, mask=mask, implementation="reference") * weights).sum()

    found, expected = ring(jnp.array([0, 240]), q, k, v), jax.jit(jax.value_and_grad(whole, (0, 1, 2)))(q, k, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), found, expected)


def test_a_part_in_which_a_query_has_no_key_counts_for_nothing():
    out, lse = jnp.ones((1, 2, 1, 4)), jnp.array([[[0.5], [-jnp.inf]]])
    empty = jnp.zeros_like(out), jnp.full_like(lse, -jnp.inf)
    merged = merge(empty, (out, lse), empty)
    np.testing.assert_array_equal(merged[0], out.at[:, 1].set(0))
    np.testing.assert_array_equal(merged[1], lse)


@pytest.mark.parametrize("name", ["odd", "grouped", "packed", "frames", "local"])
@pytest.mark.parametrize("package", ["splash", "tokamax"])
def test_the_public_kernels_agree_with_the_reference(package, name):
    if package == "tokamax":
        pytest.importorskip("tokamax", reason="tokamax is not installed")
    (spec,) = (spec for spec in SMALL if spec.name == name)

    def public(*args, **kwargs):
        out, _ = splash.attention(*args, **kwargs, package=package, block=128, interpret=True)
        return out, jnp.zeros(out.shape[:3])

    def without_lse(*args, **kwargs):
        out, _ = reference.attention(*args, **kwargs)
        return out, jnp.zeros(out.shape[:3])

    for found, true in zip(results(public, spec), results(without_lse, spec), strict=True):
        assert error(found, true) <= 1e-5


def test_the_public_kernels_report_what_they_cannot_serve():
    q, k, v = Spec("", 256, 128).arrays()
    ids = jnp.zeros((1, 256), jnp.int32), jnp.zeros((1, 128), jnp.int32)
    with pytest.raises(ValueError, match="only for as many queries as keys"):
        splash.attention(q, k, v, mask=None, segments=ids, scale=1.0)
    if importlib.util.find_spec("tokamax") is None:
        with pytest.raises(ValueError, match="needs the package tokamax"):
            splash.attention(q, k, v, mask=None, segments=None, scale=1.0, package="tokamax")


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("spec", [Spec("", 512, 512, dim=128), Spec("", 700, 77, heads=4, kv_heads=2)])
def test_cudnn_agrees_with_the_reference(spec):
    q, k, v = spec.arrays(jnp.bfloat16)
    call = {"mask": None, "segments": None, "scale": spec.dim**-0.5}
    truth = reference.attention(*(x.astype(jnp.float32) for x in (q, k, v)), **call)[0]
    found, other = (np.asarray(fn(q, k, v, **call)[0], np.float32) for fn in (gpu.attention, reference.attention))
    assert np.linalg.norm(found - truth) <= 1.5 * np.linalg.norm(other - truth)


def test_cudnn_reports_what_it_cannot_serve():
    q = jnp.zeros((1, 8, 2, 64))
    assert "takes bfloat16, got float32" in gpu.find_obstacle(q, None, None)
    assert "no masks" in gpu.find_obstacle(q, FrameCausal(4), None)
    assert "up to 128, got 256" in gpu.find_obstacle(jnp.zeros((1, 8, 2, 256), jnp.bfloat16), None, None)


def test_a_mask_that_is_too_large_to_be_written_out_is_refused_before_compiling():
    assert xla.find_mask_obstacle(2**15, 2**16) is None
    q = jax.ShapeDtypeStruct((1, 60_000, 1, 64), jnp.bfloat16)
    call = functools.partial(attention, mask=FrameCausal(1500), implementation="xla")
    with pytest.raises(ValueError, match=r"one for 60000 queries and 60000 keys has 3\.4 GiB, more than 2"):
        jax.eval_shape(call, q, q, q)
    assert jax.eval_shape(functools.partial(call, mask=None), q, q, q).shape == q.shape


@pytest.mark.parametrize("name", ["packed cross", "streaming"])
def test_no_copy_races_a_computation(name):
    (spec,) = (spec for spec in SMALL if spec.name == name)
    watched = pltpu.InterpretParams(detect_races=True)
    expected = results(reference.attention, spec)
    for found, true in zip(results(lambda *a, **k: tpu(*a, interpret=watched, **k), spec), expected, strict=True):
        assert error(found, true) <= 1e-5
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    assert not interpret_pallas_call.races.races_found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "flash"}, "implementation is one of reference, xla, tpu, .*, got 'flash'"),
        ({"implementation": "gpu"}, "implementation 'gpu' needs a GPU, and the device is a CPU"),
        ({"implementation": "tpu"}, "implementation 'tpu' needs a TPU, and the device is a CPU"),
        ({"segment_ids": jnp.zeros((1, 9), jnp.int32)}, r"segment ids of q are integers \(1, 8\); got int32 \(1, 9\)"),
        ({"k": jnp.zeros((1, 8, 3, 4))}, "a multiple of their heads"),
        ({"k": jnp.zeros((1, 8, 2, 4), jnp.bfloat16)}, "all bfloat16 or all float32"),
        ({"mask": LocalWindow((2, 2, 3), (1, 1, 1), (1, 1, 1))}, "is for 12 tokens, got 8 queries and 8 keys"),
    ],
)
def test_a_call_that_cannot_be_served_says_why(change, message):
    call = {"q": jnp.zeros((1, 8, 2, 4)), "k": jnp.zeros((1, 8, 2, 4)), **change}
    call["v"] = call["k"]
    with pytest.raises(ValueError, match=message):
        attention(**call)
