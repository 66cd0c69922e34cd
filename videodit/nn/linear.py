"""A linear map from some trailing dimensions to others."""

import math
from collections.abc import Mapping

from flax import nnx
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, Float

from videodit.nn.param import Init, gathered, param


class Linear(nnx.Module):
    """`y = x kernel + bias` over trailing dimensions, computed in the type of `x`.

    Args:
        into: the dimensions consumed, logical name (or None) to size, in order.
        out: the dimensions produced, likewise. `Linear({"embed": 192}, {"heads": 4, "head_dim": 48}, rngs=rngs)` maps
            [..., 192] to [..., 4, 48] by a kernel of shape [192, 4, 48].
        use_bias: whether to add a bias, which starts at zero.
        init: initialiser of the kernel, seen as a matrix [inputs, outputs].
    """

    def __init__(
        self,
        into: Mapping[str | None, int],
        out: Mapping[str | None, int],
        *,
        use_bias: bool = True,
        init: Init = initializers.glorot_uniform(),  # noqa: B008
        rngs: nnx.Rngs,
    ):
        self.into_rank = len(into)
        matrix = math.prod(into.values()), math.prod(out.values())
        shape, dims = (*into.values(), *out.values()), (*into, *out)
        self.kernel = param(
            rngs.params(),
            lambda key, shape, dtype: init(key, matrix, dtype).reshape(shape),
            shape,
            dims,
            inputs=len(into),
        )
        self.bias = param(rngs.params(), initializers.zeros, tuple(out.values()), tuple(out)) if use_bias else None

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        n = self.into_rank
        contract = tuple(range(x.ndim - n, x.ndim)), tuple(range(n))
        y = lax.dot_general(x, gathered(self.kernel, x.dtype), (contract, ((), ())))
        return y if self.bias is None else y + gathered(self.bias, x.dtype)
