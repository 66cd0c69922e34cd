"""Feed-forward networks."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array

from videodit.nn.linear import Linear
from videodit.nn.param import Init
from videodit.parallel.rules import constrain
from videodit.shapes import Tokens

MLPKind = Literal["gelu", "gated"]


def tanh_gelu(x: Array) -> Array:
    """Compute the tanh approximation of GELU."""
    return jax.nn.gelu(x, approximate=True)


class MLP(nnx.Module):
    """Token-wise feed-forward network.

    "gelu" is `out(gelu(up(x)))`; "gated" is `out(gelu(gate(x)) * up(x))` (Shazeer 2020), as in T5 v1.1.

    Args:
        width: size of the input and of the output.
        hidden: size of the hidden layer; a gated network has two of them.
        kind: "gelu" or "gated".
        activation: the nonlinearity.
        use_bias: whether the layers have biases.
        init: initialiser of every kernel, seen as a matrix [inputs, outputs].

    Raises:
        ValueError: for an unknown kind.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        kind: MLPKind = "gelu",
        activation: Callable[[Array], Array] = tanh_gelu,
        use_bias: bool = True,
        init: Init = initializers.glorot_uniform(),  # noqa: B008
        rngs: nnx.Rngs,
    ):
        if kind not in get_args(MLPKind):
            raise ValueError(f"an MLP's kind is one of {', '.join(get_args(MLPKind))}, got {kind!r}")
        self.activation = activation
        outer, inner = {"embed": width}, {"mlp": hidden}
        self.gate = Linear(outer, inner, use_bias=use_bias, init=init, rngs=rngs) if kind == "gated" else None
        self.up = Linear(outer, inner, use_bias=use_bias, init=init, rngs=rngs)
        self.out = Linear(inner, outer, use_bias=use_bias, init=init, rngs=rngs)

    def __call__(self, x_BLD: Tokens) -> Tokens:
        x_BLD = constrain(x_BLD, ("batch", "tokens", None))
        if self.gate is None:
            hidden_BLF = self.activation(self.up(x_BLD))
        else:
            hidden_BLF = self.activation(self.gate(x_BLD)) * self.up(x_BLD)
        hidden_BLF = constrain(hidden_BLF, ("batch", "tokens", "mlp"))
        return constrain(self.out(hidden_BLF), ("batch", "stream", None))
