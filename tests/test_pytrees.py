"""Dataclasses of arrays as pytrees: placeholders pass where types are checked, and names are those of fields."""

from dataclasses import dataclass

import jax
import numpy as np

from videodit.pytrees import register_arrays


@register_arrays
@dataclass(frozen=True)
class Pair:
    first: np.ndarray
    second: np.ndarray | None

    def __post_init__(self):
        assert isinstance(self.first, np.ndarray), "called for real pairs only"


def test_trees_of_anything_are_rebuilt_without_a_check():
    pair = Pair(np.ones(2), None)
    shapes = jax.tree.map(lambda x: x.shape, pair)
    assert shapes.first == (2,) and shapes.second is None
    (path, leaf), *rest = jax.tree.leaves_with_path(pair)
    assert jax.tree_util.keystr(path) == ".first" and leaf is pair.first and not rest
    assert jax.jit(lambda pair: pair)(pair).first.shape == (2,)
