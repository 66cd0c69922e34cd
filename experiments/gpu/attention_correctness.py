"""Attention on this device against the reference in float32: output, gradients and log-sum-exp.

    python experiments/gpu/attention_correctness.py

`gpu` (cuDNN) at lengths of video, then `xla` and the default choice over the masks and segments of
`videodit_kernels.attention.specs`. An error is the norm of the difference over the norm of the reference's value. The
reference reads the same inputs in float32, with exact products. A call that an implementation refuses is a row, too.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array
from timing import Rows, first_sentence
from videodit_kernels.attention import attention
from videodit_kernels.attention.specs import SMALL, Spec

# Largest relative errors: the weights of softmax are rounded to bfloat16 before their product with the values; float32
# products may be made in TF32 on GPUs.
TOLERANCE = {"bfloat16": 2e-2, "float32": 5e-3}
NAMES = ("out", "d_q", "d_k", "d_v")

VIDEO = (
    Spec("full, 128", 4096, 4096, heads=12, kv_heads=12, dim=128),
    Spec("full, 64", 4096, 4096, heads=12, kv_heads=12, dim=64, batch=2),
    Spec("text", 4096, 512, heads=12, kv_heads=12, dim=128),
    Spec("grouped", 2048, 2048, heads=8, kv_heads=2, dim=128),
    Spec("odd length", 1950, 1950, heads=4, kv_heads=4, dim=96),
)
TINY = (Spec("full, 64", 96, 96, heads=2, kv_heads=2), Spec("text", 96, 24, heads=2, kv_heads=2))


def cases(implementation: str, *, tiny: bool) -> Iterator[tuple[Spec, str, str | None]]:
    """Yield problem, dtype and implementation (None for the default), the most valuable first."""
    for spec in TINY if tiny else VIDEO:
        yield spec, "bfloat16", implementation
    masked = [spec for spec in SMALL if spec.mask is not None or spec.segments is not None]
    for spec in masked[:1] if tiny else SMALL:
        yield spec, "bfloat16", "xla"
    for spec in TINY[:1] if tiny else (*VIDEO[:1], *masked[:2]):
        yield spec, "bfloat16", None
    for spec in () if tiny else masked:
        yield spec, "float32", "xla"


def values_and_gradients(run: Callable[..., Array], q: Array, k: Array, v: Array, d_out: Array) -> tuple[Array, ...]:
    """Return the output and the gradients of q, k and v."""
    out, pullback = jax.vjp(run, q, k, v)
    return out, *pullback(d_out)


def evaluate(spec: Spec, dtype: str, implementation: str | None, precision: str | None = None) -> tuple[Array, ...]:
    """Return an implementation's output and gradients on the inputs of `dtype`; the reference reads them in float32."""
    arrays = *spec.arrays(jnp.dtype(dtype)), spec.arrays(jnp.dtype(dtype), seed=1)[0]
    if implementation == "reference":
        arrays = tuple(x.astype(jnp.float32) for x in arrays)

    def run(*qkv: Array) -> Array:
        return attention(*qkv, mask=spec.mask, segment_ids=spec.segment_ids(), implementation=implementation)

    with jax.default_matmul_precision(precision):
        return jax.jit(functools.partial(values_and_gradients, run))(*arrays)


@functools.cache
def expected(spec: Spec, dtype: str) -> tuple[Array, ...]:
    """Return the reference's output and gradients on the same inputs."""
    return evaluate(spec, dtype, "reference", "highest")


def errors(spec: Spec, dtype: str, implementation: str | None) -> dict[str, float]:
    """Return the relative error of each of `NAMES`."""

    def relative(x: Array, y: Array) -> float:
        return float(jnp.linalg.norm((x.astype(jnp.float32) - y).ravel()) / jnp.linalg.norm(y.ravel()))

    pairs = zip(NAMES, evaluate(spec, dtype, implementation), expected(spec, dtype), strict=True)
    return {name: relative(x, y) for name, x, y in pairs}


def main() -> None:
    """Add a row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="file that results are appended to, one JSON object per line")
    parser.add_argument("--tiny", action="store_true", help="few and small cases, on any device")
    args = parser.parse_args()
    rows = Rows(args.rows)
    own = "gpu" if jax.default_backend() == "gpu" else "xla"
    for spec, dtype, implementation in cases(own, tiny=args.tiny):
        row = {"case": spec.name, "shape": [spec.batch, spec.q_len, spec.kv_len, spec.heads, spec.kv_heads, spec.dim]}
        row |= {"mask": repr(spec.mask), "segments": spec.segments, "dtype": dtype}
        row |= {"implementation": implementation or "default"}
        try:
            error = errors(spec, dtype, implementation)
        except Exception as problem:  # a case that cannot be served is a result
            rows.add(**row, ok=False, error=first_sentence(problem))
            continue
        rows.add(**row, ok=max(error.values()) <= TOLERANCE[dtype], errors=error, tolerance=TOLERANCE[dtype])


if __name__ == "__main__":
    main()
