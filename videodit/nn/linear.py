"""A linear map from some trailing dimensions to others."""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers
from jaxtyping import Array, Float

from videodit.nn.param import Dims, Init, gather_param, param
from videodit.parallel.rules import current_mesh, gather_array, scatter_gradient


def project(x: Array, kernel: Array, dims: Dims, inputs: int) -> Array:
    """Multiply the last `inputs` dimensions of `x` with the first of the kernel, in the type of `x`.

    A sharded kernel is gathered for the product, forward and backward; its gradient is float32 and summed over devices
    in that type.
    """
    if current_mesh() is None:
        return _dot(x, kernel.astype(x.dtype), inputs)
    return _project(x, kernel, tuple(dims), inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _project(x: Array, kernel: Array, dims: Dims, inputs: int) -> Array:
    return _dot(x, gather_array(kernel, dims, x.dtype), inputs)


def _project_fwd(x: Array, kernel: Array, dims: Dims, inputs: int) -> tuple[Array, tuple[Array, Array]]:
    return _project(x, kernel, dims, inputs), (x, kernel)


def _project_bwd(dims: Dims, inputs: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    whole = gather_array(kernel, dims, x.dtype)
    outputs, rows = kernel.ndim - inputs, tuple(range(x.ndim - inputs))
    dx = lax.dot_general(dy, whole, ((range(len(rows), dy.ndim), range(inputs, inputs + outputs)), ((), ())))
    d_kernel = lax.dot_general(x, dy, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
    return dx, scatter_gradient(d_kernel, dims, kernel.dtype)


_project.defvjp(_project_fwd, _project_bwd)


def _dot(x: Array, kernel: Array, inputs: int) -> Array:
    return lax.dot_general(x, kernel, ((range(x.ndim - inputs, x.ndim), range(inputs)), ((), ())))


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
        self.down, self.up, self.adapter_scale = None, None, 0.0  # a low-rank adapter (`nn.lora`)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        y = _multiply(x, self.kernel, self.into_rank)
        if self.down is not None:
            y += self.adapter_scale * _multiply(_multiply(x, self.down, self.into_rank), self.up, 1)
        return y if self.bias is None else y + gather_param(self.bias, x.dtype)


def _multiply(x: Array, kernel: nnx.Variable, inputs: int) -> Array:
    return project(x, kernel[...], kernel.get_metadata()["dims"], inputs)
