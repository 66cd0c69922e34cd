"""Low-rank adapters: a trained model is frozen, and the product of two thin matrices is learnt in addition to some of
its linear maps (Hu et al. 2021, "LoRA")."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array

from videodit.nn.linear import Linear
from videodit.nn.param import param
from videodit.ranges import Positive, Size, check_ranges


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Linear maps with adapters, and the size of the adapters.

    Attributes:
        rank: of the adapters.
        alpha: the factor on their product is alpha / rank.
        targets: pattern (`re.search`) of the paths of the linear maps, as "stack.blocks.attention.q".
    """

    rank: Size = 16
    alpha: Positive = 16.0
    targets: str = r"blocks\.(attention|cross_attention)\.(q|k|v|out)$|blocks\.mlp\.(up|out)$"

    def __post_init__(self):
        check_ranges(self)
        try:
            re.compile(self.targets)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"lora.targets is not a pattern: {error}") from error


class Frozen(nnx.Variable):
    """A parameter that is not trained."""


def adapt(model: nnx.Module, cfg: LoRAConfig, *, rngs: nnx.Rngs) -> None:
    """Add adapters to a model, and freeze everything else; initially they change nothing.

    Raises:
        ValueError: when no linear map has a path that fits.
    """
    linears = dict(_linears(model))
    chosen = {path: linear for path, linear in linears.items() if re.search(cfg.targets, path)}
    if not chosen:
        raise ValueError(f"lora.targets {cfg.targets!r} fits none of the linear maps {', '.join(linears)}")
    freeze(model)
    for linear in chosen.values():
        _add(linear, cfg, rngs)


def freeze(model: nnx.Module) -> None:
    """Freeze all parameters of a model."""
    _retype(model, nnx.Param, Frozen)


def merge(model: nnx.Module) -> None:
    """Add each adapter's product to its kernel, remove the adapters, and unfreeze the model."""
    for _, linear in _linears(model):
        if linear.down is not None:
            product = jax.vmap(_outer) if _count_layer_dims(linear) else _outer
            change = product(linear.down[...], linear.up[...])
            linear.kernel.set_value(linear.kernel[...] + linear.adapter_scale * change)
            linear.down = linear.up = nnx.data(None)
    _retype(model, Frozen, nnx.Param)


def _retype(model: nnx.Module, old: type[nnx.Variable], new: type[nnx.Variable]) -> None:
    for _, node in list(nnx.iter_graph(model)):
        if isinstance(node, nnx.Module):
            for name, value in list(vars(node).items()):
                if isinstance(value, old):
                    setattr(node, name, new(value.get_raw_value(), **_metadata(value)))


def _outer(down: Array, up: Array) -> Array:
    return jnp.tensordot(down, up, 1)


def _count_layer_dims(linear: Linear) -> int:
    """Count the leading dimensions of a kernel that stack layers: one or none."""
    return int(_metadata(linear.kernel)["dims"][0] == "layer")


def _linears(model: nnx.Module) -> Iterator[tuple[str, Linear]]:
    for path, node in nnx.iter_graph(model):
        if isinstance(node, Linear):
            yield ".".join(map(str, path)), node


def _add(linear: Linear, cfg: LoRAConfig, rngs: nnx.Rngs) -> None:
    dims, shape, layers = _metadata(linear.kernel)["dims"], linear.kernel.shape, _count_layer_dims(linear)
    cut = layers + linear.into_rank
    into, out = shape[layers:cut], shape[cut:]
    scaled = initializers.normal(math.prod(into) ** -0.5)
    down = (*shape[:layers], *into, cfg.rank), (*dims[:cut], None)
    up = (*shape[:layers], cfg.rank, *out), (*dims[:layers], None, *dims[cut:])
    linear.down = nnx.data(param(rngs.params(), scaled, *down, inputs=linear.into_rank))
    linear.up = nnx.data(param(rngs.params(), initializers.zeros, *up, inputs=1))
    linear.adapter_scale = cfg.alpha / cfg.rank


def _metadata(variable: nnx.Variable) -> dict[str, Any]:
    metadata = variable.get_metadata()
    return {name: metadata[name] for name in ("dims", "inputs") if name in metadata}
