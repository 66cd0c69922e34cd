"""Names and layouts of a checkpoint against ours: a strict bijection, read and written tensor by tensor."""

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from videodit.interop.safetensors import Output, Tensor

Order = Sequence[int]
Groups = list[list[str]]  # the letters of each dimension


@dataclass(frozen=True)
class Rule:
    """How one parameter of ours is made of theirs, and back.

    Attributes:
        ours: its path, with dots.
        theirs: the name of theirs; `{}` in it is the layer, where ours stacks layers along its first dimension.
        pattern: theirs and ours of one layer, as `einops.rearrange` writes it: "(n h) d -> d n h".
        sizes: of the pattern's letters, where shapes do not say them.
        order: for letters of the pattern, where in theirs each index of ours is.
    """

    ours: str
    theirs: str
    pattern: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    order: Mapping[str, Order] = field(default_factory=dict)

    @property
    def stacked(self) -> bool:
        return "{}" in self.theirs

    def names(self, shape: Sequence[int]) -> list[str]:
        """Theirs, layer by layer, for a parameter of ours of this shape."""
        return [self.theirs.format(layer) for layer in range(shape[0])] if self.stacked else [self.theirs]

    def their_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of each of theirs, for one of ours of this shape."""
        theirs, ours = self._groups
        sizes = self._letters(ours, shape[1:] if self.stacked else shape)
        return tuple(math.prod(sizes[letter] for letter in group) for group in theirs)

    def import_(self, theirs: np.ndarray) -> np.ndarray:
        """One layer of ours; a view of theirs where numpy can."""
        left, right = self._groups
        return self._moved(theirs, left, right, {letter: np.asarray(order) for letter, order in self.order.items()})

    def export(self, ours: np.ndarray) -> np.ndarray:
        """The way back."""
        left, right = self._groups
        return self._moved(ours, right, left, {letter: np.argsort(order) for letter, order in self.order.items()})

    @property
    def _groups(self) -> tuple[Groups, Groups]:
        sides = self.pattern.split("->")
        left, right = ([group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", side)] for side in sides)
        return left, right

    def _letters(self, groups: Groups, shape: Sequence[int]) -> dict[str, int]:
        """The size of every letter, from the shape of one side; what that side lacks has size 1."""
        sizes = dict(self.sizes)
        for group, size in zip(groups, shape, strict=True):
            unknown = [letter for letter in group if letter not in sizes]
            assert len(unknown) < 2, f"{self.ours}: {self.pattern} does not say the sizes of {unknown}"
            if unknown:
                sizes[unknown[0]] = size // math.prod(sizes[letter] for letter in group if letter in sizes)
        return sizes

    def _moved(self, x: np.ndarray, source: Groups, target: Groups, order: Mapping[str, np.ndarray]) -> np.ndarray:
        sizes = self._letters(source, x.shape)
        before, after = ([letter for group in side for letter in group] for side in (source, target))
        shared = [letter for letter in after if letter in before]
        axes = [before.index(letter) for letter in (*shared, *(letter for letter in before if letter not in after))]
        x = x.reshape([sizes[letter] for letter in before]).transpose(axes)
        for letter, indices in order.items():
            x = np.take(x, indices, axis=shared.index(letter))
        return x.reshape([math.prod(sizes[letter] for letter in group) for group in target])


def flat(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def nested(like: Mapping[Any, Any], leaves: Mapping[str, Any], prefix: str = "") -> dict[Any, Any]:
    """The way back, into the tree that the paths are of."""
    return {
        name: nested(value, leaves, f"{prefix}{name}.") if isinstance(value, Mapping) else leaves[f"{prefix}{name}"]
        for name, value in like.items()
    }


def check(rules: Iterable[Rule], ours: Mapping[str, Any], theirs: Mapping[str, Tensor], what: str) -> None:
    """Whether the rules join every parameter of ours with every tensor of theirs, of the shapes they should have.

    Raises:
        ValueError: listing what is missing, what is left over, and what has another shape.
    """
    rules = list(rules)
    targets = [rule.ours for rule in rules]
    assert sorted(targets) == sorted(ours), f"the rules of {what} are not of its parameters: {set(targets) ^ set(ours)}"
    expected = {
        name: rule.their_shape(ours[rule.ours].shape) for rule in rules for name in rule.names(ours[rule.ours].shape)
    }
    missing = sorted(expected.keys() - theirs.keys())
    unused = sorted(theirs.keys() - expected.keys())
    other = [
        f"{name} is {list(theirs[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in theirs and theirs[name].shape != shape
    ]
    wrong = [
        f"{len(names)} {words}: {_few(names)}"
        for names, words in (
            (missing, "expected and not there"),
            (unused, "there and not expected"),
            (other, "of another shape"),
        )
        if names
    ]
    if wrong:
        raise ValueError(f"the weights are not those of {what}: {'; '.join(wrong)}")


def load(rules: Iterable[Rule], target: Mapping[Any, Any], theirs: Mapping[str, Tensor], what: str) -> dict[Any, Any]:
    """The parameters, each read straight into its place, a tensor and a device's part of a parameter at a time.

    Args:
        target: nested dicts of shapes, types and shardings (`jax.ShapeDtypeStruct`); without a sharding, on one device.
        theirs: the tensors by the names that the rules have.
        what: the words for the model in errors.

    Raises:
        ValueError: see `check`; nothing has been read then.
    """
    by_path, ours = {rule.ours: rule for rule in rules}, flat(target)
    check(by_path.values(), ours, theirs, what)
    return nested(target, {path: _load(by_path[path], shape, theirs) for path, shape in ours.items()})


def _load(rule: Rule, shape: jax.ShapeDtypeStruct, theirs: Mapping[str, Tensor]) -> jax.Array:
    tensors = [theirs[name] for name in rule.names(shape.shape)]
    sharding: Sharding = shape.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    part = functools.partial(_part, rule, tensors, shape.dtype)
    return jax.make_array_from_callback(shape.shape, sharding, part)


def _part(rule: Rule, tensors: Sequence[Tensor], dtype: Any, index: tuple[slice, ...]) -> np.ndarray:
    if not rule.stacked:
        return rule.import_(tensors[0].read())[index].astype(dtype)
    layers = tensors[index[0]]
    return np.stack([rule.import_(layer.read())[index[1:]].astype(dtype) for layer in layers])


def outputs(rules: Iterable[Rule], params: Mapping[Any, Any], dtype: Any = np.float32) -> dict[str, Output]:
    """Our parameters as tensors of theirs, to be written; each is made when its turn comes."""
    ours, made = flat(params), {}
    for rule in rules:
        value = ours[rule.ours]
        for layer, name in enumerate(rule.names(value.shape)):
            made[name] = Output(np.dtype(dtype), rule.their_shape(value.shape), _exporter(rule, value, layer, dtype))
    return made


def _exporter(rule: Rule, value: Any, layer: int, dtype: Any) -> Any:
    return lambda: rule.export(np.asarray(value[layer] if rule.stacked else value)).astype(dtype)


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
