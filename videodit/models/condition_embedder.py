"""Named conditioning inputs of a transformer: how a value that goes with a clip enters the network."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from videodit.models.conditioning import CONCAT_CHANNELS, FIRST_FRAMES, IMAGE
from videodit.registry import Registry

RESERVED = FIRST_FRAMES, CONCAT_CHANNELS, IMAGE


class ConditionEmbedder(nnx.Module, abc.ABC):
    """Takes one named input in: as a vector beside the embedding of time, or as tokens beside those of the text.

    A subclass has `shape` and `dtype`, those of one clip's value, and overrides at least one of the two methods. It
    should start at zero, so that a model which gets a new input starts as the model that it was.

    Args:
        width: of the transformer.
    """

    shape: ClassVar[tuple[int, ...]]
    dtype: ClassVar[DTypeLike] = jnp.float32

    @abc.abstractmethod
    def __init__(self, width: int, *, rngs: nnx.Rngs): ...

    def embed_global(self, value: Shaped[Array, "B ..."]) -> Float[Array, "B D"] | None:
        """Return a vector that is added to the embedding of time; None for none."""
        return None

    def embed_tokens(self, value: Shaped[Array, "B ..."]) -> Float[Array, "B I D"] | None:
        """Return tokens that all blocks attend to beside the text's; None for none."""
        return None


CONDITION_EMBEDDERS: Registry[type[ConditionEmbedder]] = Registry("condition embedder", "videodit.models.conditions")


def parse_condition(entry: str) -> tuple[str, str]:
    """Return the name of an input, and the name of its embedder: those of `NAME`, or of `NAME=MODULE:CLASS`."""
    name, _, embedder = entry.partition("=")
    return name, embedder or name


def condition_names(entries: Sequence[str]) -> tuple[str, ...]:
    """Return the names of inputs; ValueError for one that is given twice, or that every transformer has."""
    names = tuple(parse_condition(entry)[0] for entry in entries)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"model.conditions names '{name}' twice")
        if name in RESERVED:
            raise ValueError(f"model.conditions: '{name}' is an input of images: give yours another name")
    return names


def find_embedders(entries: Sequence[str]) -> dict[str, type[ConditionEmbedder]]:
    """Return the embedder of every input by name; ValueError when there is none, and as `condition_names`."""
    condition_names(entries)
    return {name: CONDITION_EMBEDDERS.get(embedder) for name, embedder in map(parse_condition, entries)}
