"""Named conditioning inputs of a transformer: how a value that goes with a clip enters the network."""

import abc
from typing import ClassVar

from flax import nnx
from jaxtyping import Array, Float, Shaped

from videodit.registry import Registry


class ConditionEmbedder(nnx.Module, abc.ABC):
    """Takes one named input in: as a vector beside the embedding of time, or as tokens beside those of the text.

    A subclass has `shape`, that of one clip's value, and overrides at least one of the two methods. It should start at
    zero, so that a model which gets a new input starts as the model that it was.

    Args:
        width: of the transformer.
    """

    shape: ClassVar[tuple[int, ...]]

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


def find_embedder(entry: str) -> type[ConditionEmbedder]:
    """Return the embedder of an entry of `DiTConfig.conditions`; ValueError when there is none of that name."""
    return CONDITION_EMBEDDERS.get(parse_condition(entry)[1])
