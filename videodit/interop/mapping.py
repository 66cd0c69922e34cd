"""A strict bijection between the tensors of a checkpoint and our parameters, read and written tensor by tensor."""

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import DTypeLike, Shaped

from videodit.interop.safetensors import Output, Tensor, enumerate_names

NumpyArray = Shaped[np.ndarray, "..."]
Order = Sequence[int]
Groups = list[list[str]]  # the letters of each dimension


@dataclass(frozen=True)
class Rule:
    """How a parameter of our network is computed from tensors of the reference, and back.

    Attributes:
        ours: the parameter's path, with dots.
        theirs: the tensor's name; with `{}` for the layer if the parameter stacks layers along its first dimension.
        pattern: from the tensor to the parameter of one layer, as in `einops.rearrange`: "(n h) d -> d n h".
        sizes: sizes of letters of the pattern that shapes do not determine.
        order: for letters of the pattern, their index for each of our indices.
    """

    ours: str
    theirs: str
    pattern: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    order: Mapping[str, Order] = field(default_factory=dict)

    @property
    def stacked(self) -> bool:
        """Whether the parameter stacks layers along its first dimension."""
        return "{}" in self.theirs

    def their_names(self, shape: Sequence[int]) -> list[str]:
        """Return the names of the tensors, layer by layer, for a parameter of the given shape."""
        return [self.theirs.format(layer) for layer in range(shape[0])] if self.stacked else [self.theirs]

    def their_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of each tensor, for a parameter of the given shape."""
        theirs, ours = self._groups
        sizes = self._letters(ours, shape[1:] if self.stacked else shape)
        return tuple(math.prod(sizes[letter] for letter in group) for group in theirs)

    def import_(self, theirs: NumpyArray) -> NumpyArray:
        """Return a layer of the parameter; a view of the tensor where numpy allows it."""
        left, right = self._groups
        orders = {letter: np.asarray(order) for letter, order in self.order.items()}
        return self._rearrange(theirs, left, right, orders)

    def export(self, ours: NumpyArray) -> NumpyArray:
        """Return the tensor of a layer of the parameter: the inverse of `import_`."""
        left, right = self._groups
        orders = {letter: np.argsort(order) for letter, order in self.order.items()}
        return self._rearrange(ours, right, left, orders)

    @property
    def _groups(self) -> tuple[Groups, Groups]:
        sides = self.pattern.split("->")
        left, right = ([group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", side)] for side in sides)
        return left, right

    def _letters(self, groups: Groups, shape: Sequence[int]) -> dict[str, int]:
        """Return the size of every letter, from the shape of one side; letters that it lacks have size 1."""
        sizes = dict(self.sizes)
        for group, size in zip(groups, shape, strict=True):
            unsized = [letter for letter in group if letter not in sizes]
            assert len(unsized) < 2, f"{self.ours}: {self.pattern} does not determine the sizes of {unsized}"
            if unsized:
                sizes[unsized[0]] = size // math.prod(sizes[letter] for letter in group if letter in sizes)
        return sizes

    def _rearrange(self, x: NumpyArray, source: Groups, target: Groups, orders: Mapping[str, NumpyArray]) -> NumpyArray:
        sizes = self._letters(source, x.shape)
        before, after = ([letter for group in side for letter in group] for side in (source, target))
        shared = [letter for letter in after if letter in before]
        axes = [before.index(letter) for letter in (*shared, *(letter for letter in before if letter not in after))]
        x = x.reshape([sizes[letter] for letter in before]).transpose(axes)
        for letter, indices in orders.items():
            x = np.take(x, indices, axis=shared.index(letter))
        return x.reshape([math.prod(sizes[letter] for letter in group) for group in target])


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def unflatten(like: Mapping[Any, Any], leaves: Mapping[str, Any], prefix: str = "") -> dict[Any, Any]:
    """Return nested dicts of the structure of `like` with the leaves at their dotted paths."""
    return {
        name: unflatten(value, leaves, f"{prefix}{name}.") if isinstance(value, Mapping) else leaves[f"{prefix}{name}"]
        for name, value in like.items()
    }


def check(rules: Iterable[Rule], ours: Mapping[str, Any], theirs: Mapping[str, Tensor], description: str) -> None:
    """Check that the rules map every tensor to a parameter, that every parameter is filled, and that shapes match.

    Args:
        ours: parameters, or their shapes, by dotted path.
        description: the network in words, for messages.

    Raises:
        ValueError: listing tensors that are missing, unexpected, or of another shape.
    """
    rules = list(rules)
    targets = [rule.ours for rule in rules]
    assert sorted(targets) == sorted(ours), f"rules and parameters of {description}: {set(targets) ^ set(ours)}"
    expected = {
        name: rule.their_shape(ours[rule.ours].shape)
        for rule in rules
        for name in rule.their_names(ours[rule.ours].shape)
    }
    missing = sorted(expected.keys() - theirs.keys())
    unexpected = sorted(theirs.keys() - expected.keys())
    different = [
        f"{name} is {list(theirs[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in theirs and theirs[name].shape != shape
    ]
    wrong = [
        f"{len(names)} {words}: {enumerate_names(names)}"
        for names, words in ((missing, "missing"), (unexpected, "unexpected"), (different, "of another shape"))
        if names
    ]
    if wrong:
        raise ValueError(f"the weights are not those of {description}: {'; '.join(wrong)}")


def load(
    rules: Iterable[Rule], target: Mapping[Any, Any], theirs: Mapping[str, Tensor], description: str
) -> dict[Any, Any]:
    """Read the parameters tensor by tensor, each device only its shard.

    Args:
        target: nested dicts of shapes, types and shardings (`jax.ShapeDtypeStruct`); without a sharding, on one device.
        theirs: the tensors by name.
        description: the network in words, for messages.

    Raises:
        ValueError: as `check`, before any tensor is read.
    """
    by_path, ours = {rule.ours: rule for rule in rules}, flatten(target)
    check(by_path.values(), ours, theirs, description)
    return unflatten(target, {path: _load(by_path[path], shape, theirs) for path, shape in ours.items()})


def _load(rule: Rule, shape: jax.ShapeDtypeStruct, theirs: Mapping[str, Tensor]) -> jax.Array:
    tensors = [theirs[name] for name in rule.their_names(shape.shape)]
    sharding: Sharding = shape.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    read_shard = functools.partial(_read_shard, rule, tensors, shape.dtype)
    return jax.make_array_from_callback(shape.shape, sharding, read_shard)


def _read_shard(rule: Rule, tensors: Sequence[Tensor], dtype: DTypeLike, index: tuple[slice, ...]) -> NumpyArray:
    if not rule.stacked:
        return rule.import_(tensors[0].read())[index].astype(dtype)
    layers = tensors[index[0]]
    return np.stack([rule.import_(layer.read())[index[1:]].astype(dtype) for layer in layers])


def export(rules: Iterable[Rule], params: Mapping[Any, Any], dtype: DTypeLike = np.float32) -> dict[str, Output]:
    """Return our parameters as tensors of the reference; each is computed when it is written."""
    ours, tensors = flatten(params), {}
    for rule in rules:
        param = ours[rule.ours]
        for layer, name in enumerate(rule.their_names(param.shape)):
            compute = functools.partial(_export, rule, param, layer, dtype)
            tensors[name] = Output(np.dtype(dtype), rule.their_shape(param.shape), compute)
    return tensors


def _export(rule: Rule, param: Shaped[jax.Array, "..."] | NumpyArray, layer: int, dtype: DTypeLike) -> NumpyArray:
    return rule.export(np.asarray(param[layer] if rule.stacked else param)).astype(dtype)
