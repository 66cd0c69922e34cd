from dataclasses import dataclass, field
from typing import Literal

import pytest

from videodit.config.schema import from_tree, to_tree


@dataclass(frozen=True)
class Inner:
    depth: int
    patch: tuple[int, int, int] = (1, 2, 2)
    strides: tuple[tuple[int, int], ...] = ()
    kind: Literal["gelu", "gated"] = "gelu"

    def __post_init__(self):
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}: it must be at least 1")


@dataclass(frozen=True)
class Outer:
    model: Inner
    rate: float = 0.5
    path: str | None = None
    on: bool = False
    extra: Inner = field(default_factory=lambda: Inner(depth=3))


def test_a_tree_is_the_dataclass_again():
    config = Outer(Inner(2, (1, 4, 4), ((1, 2), (2, 2)), "gated"), 0.25, "here", True)
    assert from_tree(Outer, to_tree(config)) == config
    assert to_tree(config)["model"]["strides"] == ((1, 2), (2, 2))


def test_json_lists_become_tuples_and_ints_become_floats():
    config = from_tree(Outer, {"model": {"depth": 2, "patch": [1, 4, 4], "strides": [[1, 2]]}, "rate": 1})
    assert config.model.patch == (1, 4, 4)
    assert config.model.strides == ((1, 2),)
    assert isinstance(config.rate, float)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model": {"dept": 2}}, r"unknown key 'model.dept': did you mean 'model.depth'\?"),
        ({"model": {"depth": 2, "zzz": 1}}, "unknown key 'model.zzz': the keys there are depth, kind, patch, strides"),
        ({"model": {"depth": 2.5}}, "model.depth must be an int, not 2.5"),
        ({"model": {"depth": True}}, "model.depth must be an int, not True"),
        ({"model": {"depth": 2, "patch": (1, 2)}}, r"model.patch must be a tuple of 3 \(an int, .*\), not \(1, 2\)"),
        ({"model": {"depth": 2, "patch": (1, 2, "x")}}, r"model.patch\[2\] must be an int, not 'x'"),
        (
            {"model": {"depth": 2, "kind": "gelo"}},
            "model.kind must be one of 'gelu', 'gated', not 'gelo': did you mean",
        ),
        ({"model": {"depth": 0}}, "model: depth is 0: it must be at least 1"),
        ({"model": {"depth": 1}, "path": 3}, "path must be a string or None, not 3"),
        ({"model": {"depth": 1}, "on": 1}, "on must be true or false, not 1"),
        ({"model": 3}, "model must be a JSON object, not 3"),
        ({}, "key 'model' is missing: it needs Inner"),
    ],
)
def test_a_wrong_tree_raises_a_suggestion(tree, message):
    with pytest.raises(ValueError, match=message):
        from_tree(Outer, tree)
