"""Rules for the layers that torch's models are made of."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from videodit.interop.mapping import Rule


@runtime_checkable
class Heads(Protocol):
    """What says how wide attention is."""

    num_heads: int
    head_dim: int


def linear(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """A linear layer: torch's weights are [outputs, inputs]."""
    rules = [Rule(f"{ours}.kernel", f"{theirs}.weight", "o i -> i o")]
    return [*rules, Rule(f"{ours}.bias", f"{theirs}.bias", "o -> o")] if bias else rules


def norm(ours: str, theirs: str) -> list[Rule]:
    """A layer norm."""
    return [scale(ours, theirs), Rule(f"{ours}.bias", f"{theirs}.bias", "d -> d")]


def scale(ours: str, theirs: str) -> Rule:
    """An RMS norm."""
    return Rule(f"{ours}.scale", f"{theirs}.weight", "d -> d")


def heads(cfg: Heads, ours: str, theirs: str, order: Sequence[int] | None = None, *, bias: bool = True) -> list[Rule]:
    """A projection to heads, whose dimensions lie in the order given."""
    rule = _sizes(cfg, order)
    rules = [Rule(f"{ours}.kernel", f"{theirs}.weight", "(n h) d -> d n h", *rule)]
    return [*rules, Rule(f"{ours}.bias", f"{theirs}.bias", "(n h) -> n h", *rule)] if bias else rules


def merged(cfg: Heads, ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """The projection back from heads."""
    rules = [Rule(f"{ours}.kernel", f"{theirs}.weight", "d (n h) -> n h d", *_sizes(cfg, None))]
    return [*rules, Rule(f"{ours}.bias", f"{theirs}.bias", "d -> d")] if bias else rules


def heads_scale(cfg: Heads, ours: str, theirs: str, order: Sequence[int] | None = None) -> Rule:
    """An RMS norm over all heads together."""
    return Rule(f"{ours}.scale", f"{theirs}.weight", "(n h) -> (n h)", *_sizes(cfg, order))


def _sizes(cfg: Heads, order: Sequence[int] | None) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    return {"n": cfg.num_heads, "h": cfg.head_dim}, {} if order is None else {"h": tuple(map(int, order))}
