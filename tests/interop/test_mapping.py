"""The mapping of names: a bijection or an error, with equal shapes, and every device reads only its shard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videodit.interop.mapping import Rule, export, flatten, load, unflatten
from videodit.interop.parts import drop_tied
from videodit.interop.safetensors import Output, Weights, write

RULES = [
    Rule("q.kernel", "block.{}.q.weight", "(n h) d -> d n h", {"n": 2}, {"h": (0, 2, 1, 3)}),
    Rule("patch", "patch.weight", "d c y x -> (y x c) d", {"y": 2, "x": 3}),
    Rule("scale", "scale.gamma", "d a b -> (d a b)", {"a": 1, "b": 1}),
]
TREE = {"q": {"kernel": (3, 8, 2, 4)}, "patch": (30, 16), "scale": (8,)}  # of ours, the first of three layers


def shapes(sharding=None):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding and sharding(len(shape))),
        TREE,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def their_arrays():
    rng = np.random.default_rng(0)
    shapes_by_name = {f"block.{i}.q.weight": (8, 8) for i in range(3)} | {
        "patch.weight": (16, 5, 2, 3),
        "scale.gamma": (8, 1, 1),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes_by_name.items()}


@pytest.fixture
def weights(tmp_path):
    def write_arrays(arrays):
        write(tmp_path, "model", {name: Output(x.dtype, x.shape, lambda x=x: x) for name, x in arrays.items()})
        return Weights(tmp_path)

    return write_arrays


def test_elements_follow_the_pattern(weights):
    arrays = their_arrays()
    ours = load(RULES, shapes(), weights(arrays), "it")
    for layer, d, n, h in [(0, 0, 0, 0), (2, 7, 1, 2), (1, 3, 0, 1)]:
        their_h = (0, 2, 1, 3)[h]
        assert ours["q"]["kernel"][layer, d, n, h] == arrays[f"block.{layer}.q.weight"][n * 4 + their_h, d]
    for y, x, c, d in [(0, 0, 0, 0), (1, 2, 4, 15), (1, 0, 3, 7)]:
        assert ours["patch"][(y * 3 + x) * 5 + c, d] == arrays["patch.weight"][d, c, y, x]
    back = export(RULES, ours)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name].compute(), array)


@given(st.permutations(["a", "b", "c"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_export_inverts_import_for_any_pattern(letters, a, b, c, grouped):
    right = f"({letters[0]} {letters[1]}) {letters[2]}" if grouped else " ".join(letters)
    order = tuple(map(int, np.random.default_rng(a).permutation(b)))
    rule = Rule("x", "x", f"(a b) c -> {right}", {"a": a, "b": b, "c": c}, {"b": order})
    x = np.arange(a * b * c).reshape(a * b, c)
    ours = rule.import_(x)
    np.testing.assert_array_equal(rule.export(ours), x)
    assert rule.their_shape(ours.shape) == x.shape


def test_every_device_reads_its_shard(weights):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    parts = {4: (None, "x", None, "y"), 2: ("x", "y"), 1: ("y",)}
    # 30 rows do not divide by 8 devices, but do by 2.
    target = shapes(lambda rank: jax.NamedSharding(mesh, jax.P(*parts[rank])))
    opened = weights(their_arrays())
    sharded, replicated = load(RULES, target, opened, "it"), load(RULES, shapes(), opened, "it")
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(replicated), strict=True):
        assert len(a.addressable_shards) == 8 and not a.sharding.is_fully_replicated
        np.testing.assert_array_equal(a, b)


def test_every_mismatch_is_listed_and_no_tensor_read(weights, monkeypatch):
    arrays = their_arrays()
    del arrays["block.1.q.weight"]
    arrays["patch.weight"] = arrays["patch.weight"][:, :4]
    arrays["block.3.q.weight"] = arrays["block.0.q.weight"]
    opened = weights(arrays)
    monkeypatch.setattr("videodit.interop.safetensors.Tensor.read", lambda self: pytest.fail("a tensor was read"))
    with pytest.raises(ValueError, match="the weights are not those of it") as error:
        load(RULES, shapes(), opened, "it")
    message = str(error.value)
    assert "1 missing: block.1.q.weight" in message
    assert "1 unexpected: block.3.q.weight" in message
    assert "1 of another shape: patch.weight is [16, 4, 2, 3], expected [16, 5, 2, 3]" in message


def test_unflatten_inverts_flatten():
    tree = {"a": {0: 1, 1: {"b": 2}}, "c": 3}
    assert flatten(tree) == {"a.0": 1, "a.1.b": 2, "c": 3}
    assert unflatten(tree, flatten(tree)) == tree


def test_tied_tensors_are_dropped_if_equal(weights):
    arrays = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    assert list(drop_tied(weights(arrays), {"b": "a", "c": "a"})) == ["a"]
    arrays["b"] = arrays["b"] + 1
    with pytest.raises(ValueError, match="b and a should be one tensor, and differ"):
        drop_tied(weights(arrays), {"b": "a"})
