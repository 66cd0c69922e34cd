"""Dataclasses of arrays as JAX pytrees."""

import dataclasses
from typing import Any, TypeVar

import jax

T = TypeVar("T", bound=type)


def register_arrays(cls: T) -> T:
    """Register a dataclass whose every field is an array, or a pytree of arrays, as a pytree; usable as a decorator.

    Its keys are those of attributes. Unflattening does not call `__init__`, whose annotations the tests check: JAX puts
    placeholders, shardings and other objects where arrays are.
    """
    names = tuple(field.name for field in dataclasses.fields(cls))

    def flatten_with_keys(node: Any) -> tuple[tuple[tuple[Any, Any], ...], None]:
        return tuple((jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in names), None

    def flatten(node: Any) -> tuple[tuple[Any, ...], None]:
        return tuple(getattr(node, name) for name in names), None

    def unflatten(_: None, children: tuple[Any, ...]) -> Any:
        node = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(node, name, child)
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
