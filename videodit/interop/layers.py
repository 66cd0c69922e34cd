"""Mapping rules for the layers that torch models are built of."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from videodit.interop.mapping import Rule


@runtime_checkable
class HeadSizes(Protocol):
    """A configuration that has the sizes of attention heads."""

    num_heads: int
    head_dim: int


def linear_rules(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """Return the rules of a linear layer; torch stores weights as [outputs, inputs]."""
    rules = [Rule(f"{ours}.kernel", f"{theirs}.weight", "o i -> i o")]
    return [*rules, Rule(f"{ours}.bias", f"{theirs}.bias", "o -> o")] if bias else rules


def layer_norm_rules(ours: str, theirs: str) -> list[Rule]:
    """Return the rules of a layer norm."""
    return [rms_norm_rule(ours, theirs), Rule(f"{ours}.bias", f"{theirs}.bias", "d -> d")]


def rms_norm_rule(ours: str, theirs: str) -> Rule:
    """Return the rule of an RMS norm."""
    return Rule(f"{ours}.scale", f"{theirs}.weight", "d -> d")


def to_heads_rules(
    cfg: HeadSizes, ours: str, theirs: str, order: Sequence[int] | None = None, *, bias: bool = True
) -> list[Rule]:
    """Return the rules of a projection to heads.

    Args:
        order: for each dimension of our head, its index in theirs.
    """
    sizes, orders = _sizes(cfg), _orders(order)
    rules = [Rule(f"{ours}.kernel", f"{theirs}.weight", "(n h) d -> d n h", sizes, orders)]
    return [*rules, Rule(f"{ours}.bias", f"{theirs}.bias", "(n h) -> n h", sizes, orders)] if bias else rules


def from_heads_rules(cfg: HeadSizes, ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """Return the rules of the projection from heads to the model width."""
    rules = [Rule(f"{ours}.kernel", f"{theirs}.weight", "d (n h) -> n h d", _sizes(cfg))]
    return [*rules, Rule(f"{ours}.bias", f"{theirs}.bias", "d -> d")] if bias else rules


def heads_norm_rule(cfg: HeadSizes, ours: str, theirs: str, order: Sequence[int] | None = None) -> Rule:
    """Return the rule of an RMS norm across all heads; `order` as in `to_heads_rules`."""
    return Rule(f"{ours}.scale", f"{theirs}.weight", "(n h) -> (n h)", _sizes(cfg), _orders(order))


def _sizes(cfg: HeadSizes) -> dict[str, int]:
    return {"n": cfg.num_heads, "h": cfg.head_dim}


def _orders(order: Sequence[int] | None) -> dict[str, tuple[int, ...]]:
    return {} if order is None else {"h": tuple(map(int, order))}
