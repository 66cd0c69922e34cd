"""Products of matrices as the kernels write them."""

import jax.numpy as jnp
from jax import Array, lax

# Contracted dims: a b, a b', a' b.
NN = (((1,), (0,)), ((), ()))
NT = (((1,), (1,)), ((), ()))
TN = (((0,), (0,)), ((), ()))


def dot(a: Array, b: Array, dims) -> Array:
    """Multiply two matrices, summed in float32; float32 operands are not rounded to bfloat16."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, dims, precision=precision, preferred_element_type=jnp.float32)
