"""Choice of the implementation that computes attention, and errors that say why one cannot."""

import functools
import logging
from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from videodit_kernels import target
from videodit_kernels.attention import gpu, reference, splash, xla
from videodit_kernels.attention.masks import Mask, SequenceOffsets
from videodit_kernels.attention.tpu import op as tpu

Implementation = Literal["reference", "xla", "tpu", "tpu_interpret", "gpu", "splash", "tokamax"]

# The backend that an implementation needs.
_REQUIRED = {"tpu": "tpu", "splash": "tpu", "tokamax": "tpu", "gpu": "gpu"}

_LOG = logging.getLogger(__name__)


def attention(
    q: Num[Array, "B T N H"],
    k: Num[Array, "B S M H"],
    v: Num[Array, "B S M H"],
    *,
    mask: Mask | None = None,
    offsets: SequenceOffsets | None = None,
    segment_ids: Array | tuple[Array, Array] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    residuals: str | None = None,
    implementation: str | None = None,
) -> Num[Array, "B T N H"] | tuple[Num[Array, "B T N H"], Float[Array, "B T N"]]:
    """Compute `softmax(scale q k' + mask) v`, softmax and sums in float32.

    Args:
        q: queries [B, T, N, H], bfloat16 or float32.
        k, v: keys and values [B, S, M, H], M a divisor of N: query head n reads head n // (N / M).
        mask: which keys a query may attend to, by position.
        offsets: where q and k lie in the longer sequences that the mask is for: in a ring every device holds a part.
        segment_ids: int [B, T], or a pair [B, T] and [B, S]: a query attends to the keys with its own id. Padding is a
            segment of its own.
        scale: 1 / sqrt(H) by default.
        return_lse: also return the log-sum-exp of the logits, float32 [B, T, N], -inf where a query has no key;
            differentiable, so that `merge` joins attention over parts of the keys.
        residuals: a name for policies of `jax.checkpoint`, under which they can keep the output and its log-sum-exp,
            which the gradient of the kernels needs.
        implementation: None for the best that serves this backend and call, logged once.

    Returns [B, T, N, H] in the type of `q`; zeros where a query has no key.

    Raises:
        ValueError: for shapes or types that do not fit, or an implementation that cannot serve the call.
    """
    segments = _segments(segment_ids)
    _check(q, k, v, segments)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    backend = target.get_platform()
    name = implementation or _best(backend, q, mask, segments, return_lse)
    if name not in get_args(Implementation):
        raise ValueError(f"implementation is one of {', '.join(get_args(Implementation))}, got {implementation!r}")
    required = _REQUIRED.get(name, backend)
    if required != backend:
        raise ValueError(
            f"implementation {name!r} needs a {required.upper()}, and the device is a {backend.upper()}; "
            "'xla' and 'tpu_interpret' run anywhere"
        )
    out, lse = _implementation(name, return_lse, residuals)(
        q, k, v, mask=mask, offsets=offsets, segments=segments, scale=scale
    )
    if return_lse and lse is None:
        raise ValueError(f"implementation {name!r} has no log-sum-exp with a gradient")
    return (out, lse) if return_lse else out


def gradients(
    q: Num[Array, "B T N H"],
    k: Num[Array, "B S M H"],
    v: Num[Array, "B S M H"],
    d_out: Num[Array, "B T N H"],
    lse: Float[Array, "B T N"],
    delta: Float[Array, "B T N"],
    *,
    mask: Mask | None = None,
    offsets: SequenceOffsets | None = None,
    segment_ids: Array | tuple[Array, Array] | None = None,
    scale: float | None = None,
    implementation: str | None = None,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B S M H"], Float[Array, "B S M H"]]:
    """Return the gradients of q, k and v, float32, where `k` and `v` are part of all keys; over all parts they add up.

    Args:
        d_out: gradient of the output over all keys, in the type of `q`.
        lse: log-sum-exp over all keys (`return_lse`), -inf where a query has no key.
        delta: `sum(out * d_out)` over the head dim, float32, of the output over all keys.
        implementation: "reference", "tpu", "tpu_interpret", or None for the one that serves this backend.

    The others are as in `attention`, and so are the errors.
    """
    segments = _segments(segment_ids)
    _check(q, k, v, segments)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    name = target.choose_implementation(implementation)
    run = reference.gradients if name == "reference" else functools.partial(tpu.gradients, interpret=name != "tpu")
    return run(q, k, v, d_out, lse, delta, mask=mask, offsets=offsets, segments=segments, scale=scale)


def _implementation(name: str, return_lse: bool, residuals: str | None) -> Callable[..., tuple[Array, Array | None]]:
    match name:
        case "reference":
            return reference.attention
        case "xla":
            return functools.partial(xla.attention, return_lse=return_lse)
        case "gpu":
            return gpu.attention
        case "splash" | "tokamax":
            return functools.partial(splash.attention, package=name)
    return functools.partial(tpu.attention, interpret=name == "tpu_interpret", residuals=residuals)


def _best(backend: str, q: Array, mask: Mask | None, segments, return_lse: bool) -> Implementation:
    # On CPUs XLA compiles the formulas to a program a third faster than `jax.nn.dot_product_attention`.
    names: dict[str, Implementation] = {"tpu": "tpu", "cpu": "reference"}
    name = names.get(backend, "xla")
    if backend == "gpu" and not return_lse and not gpu.find_obstacle(q, mask, segments):
        name = "gpu"
    _log_choice(backend, name)
    return name


@functools.cache
def _log_choice(backend: str, name: str) -> None:
    _LOG.info("attention on %s is %r", backend, name)


def _segments(ids: Array | tuple[Array, Array] | None) -> tuple[Array, Array] | None:
    return ids if ids is None or isinstance(ids, tuple) else (ids, ids)


def _check(q: Array, k: Array, v: Array, segments: tuple[Array, Array] | None) -> None:
    if not (q.ndim == k.ndim == v.ndim == 4):
        raise ValueError(f"q, k and v are [B, T, N, H]; got shapes {q.shape}, {k.shape}, {v.shape}")
    if k.shape != v.shape or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]) or q.shape[2] % k.shape[2]:
        raise ValueError(
            "k and v have one shape, q has their batch and head dim and a multiple of their heads; "
            f"got q {q.shape}, k {k.shape}, v {v.shape}"
        )
    if not (q.dtype == k.dtype == v.dtype) or q.dtype not in (jnp.bfloat16, jnp.float32):
        raise ValueError(f"q, k and v are all bfloat16 or all float32; got {q.dtype}, {k.dtype}, {v.dtype}")
    for name, x, ids in [] if segments is None else zip("qk", (q, k), segments, strict=True):
        if ids.shape != x.shape[:2] or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"segment ids of {name} are integers {x.shape[:2]}; got {ids.dtype} {ids.shape}")
