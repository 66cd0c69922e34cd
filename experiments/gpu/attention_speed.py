"""Attention on an NVIDIA GPU: milliseconds and TFLOP/s forward and backward, against PyTorch's SDPA on the same GPU.

    python experiments/gpu/attention_speed.py

At lengths of video, bfloat16, batch 1: `gpu` (cuDNN) and, where PyTorch is installed, its cuDNN and flash backends;
then `xla` as far as its logits fit. FLOPs are 4 T S H per head forward and 10 T S H backward. Times are medians; the
backward's is that of both passes less that of the forward. `share` is of the peak in `videodit/parallel/chips.py`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from timing import Rows, first_sentence, median_seconds
from videodit_kernels.attention import attention

from videodit.parallel.chips import find_chip


@dataclass(frozen=True)
class Shape:
    """Queries, keys, heads and head dim; `padded` masks the last quarter of the keys, like the padding of captions."""

    name: str
    q_len: int
    kv_len: int
    heads: int
    dim: int
    padded: bool = False


VIDEO = (
    Shape("1.3b, 81 frames of 480 x 832", 32760, 32760, 12, 128),
    Shape("24 heads", 16384, 16384, 24, 128),
    Shape("14b, 81 frames of 720 x 1280", 75600, 75600, 40, 128),
)
# What `xla` serves: the logits are written out.
WRITTEN_OUT = (Shape("short", 4096, 4096, 12, 128), Shape("captions of 1.3b", 32760, 512, 12, 128, padded=True))
TINY = (Shape("tiny", 128, 128, 2, 64),)
TORCH_BACKENDS = ("CUDNN_ATTENTION", "FLASH_ATTENTION")

Seconds = tuple[float, float]


def time_ours(implementation: str, shape: Shape, repeats: int) -> Seconds:
    """Return the seconds of the forward pass, and of forward and backward."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, d_out = (jax.random.normal(key, (1, shape.q_len, shape.heads, shape.dim), jnp.bfloat16) for key in keys[:2])
    k, v = (jax.random.normal(key, (1, shape.kv_len, shape.heads, shape.dim), jnp.bfloat16) for key in keys[2:])
    segments = None
    if shape.padded:
        segments = (
            jnp.zeros((1, shape.q_len), int),
            (jnp.arange(shape.kv_len) >= 3 * shape.kv_len // 4)[None].astype(int),
        )

    def forward(q, k, v):
        return attention(q, k, v, segment_ids=segments, implementation=implementation)

    def both(q, k, v, d_out):
        return jax.vjp(forward, q, k, v)[1](d_out)

    forward_jit, both_jit = jax.jit(forward), jax.jit(both)
    return (
        median_seconds(lambda: forward_jit(q, k, v), jax.block_until_ready, repeats),
        median_seconds(lambda: both_jit(q, k, v, d_out), jax.block_until_ready, repeats),
    )


def time_torch(backend: str, shape: Shape, repeats: int) -> Seconds:
    """Return the same times of PyTorch's scaled_dot_product_attention."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def random(length: int) -> torch.Tensor:
        return torch.randn(1, shape.heads, length, shape.dim, device="cuda", dtype=torch.bfloat16)

    q, k, v, d_out = random(shape.q_len), random(shape.kv_len), random(shape.kv_len), random(shape.q_len)
    for x in (q, k, v):
        x.requires_grad_()

    def forward():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def both():
        return torch.autograd.grad(forward(), (q, k, v), d_out)

    with sdpa_kernel(getattr(SDPBackend, backend)):
        forward_s, both_s = (
            median_seconds(run, lambda _: torch.cuda.synchronize(), repeats) for run in (forward, both)
        )
    return forward_s, both_s


def torch_problem() -> str | None:
    """Return why PyTorch's kernels cannot be timed; None if they can."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    return None if torch.cuda.is_available() else "PyTorch sees no GPU"


def add_row(rows: Rows, name: str, shape: Shape, repeats: int, run: Callable[[str, Shape, int], Seconds]) -> None:
    """Time one implementation at one shape and add its row."""
    row = {"implementation": name, "case": shape.name, "padded": shape.padded}
    row["shape"] = [1, shape.q_len, shape.kv_len, shape.heads, shape.dim]
    try:
        forward, both = run(name.removeprefix("torch "), shape, repeats)
    except Exception as problem:  # an implementation that cannot serve is a result
        rows.add(**row, error=first_sentence(problem))
        return
    product = 2 * shape.q_len * shape.kv_len * shape.heads * shape.dim
    chip = find_chip(jax.devices()[0].device_kind)
    backward = max(both - forward, 1e-9)  # noise, where all of it takes microseconds
    for which, flops, seconds in (("forward", 2 * product, forward), ("backward", 5 * product, backward)):
        rate = flops / seconds
        row[which] = {"ms": 1e3 * seconds, "tflops": rate / 1e12, "share": chip and rate / chip.flops}
    rows.add(**row)


def main() -> None:
    """Add a row per shape and implementation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="file that results are appended to, one JSON object per line")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="one small shape, on any device")
    args = parser.parse_args()
    rows, repeats = Rows(args.rows), 2 if args.tiny else args.repeats
    problem = torch_problem()
    if problem:
        rows.add(implementation="torch", error=problem)
    own = "gpu" if jax.default_backend() == "gpu" else "xla"
    for shape in TINY if args.tiny else VIDEO:
        add_row(rows, own, shape, repeats, time_ours)
        for backend in () if problem else TORCH_BACKENDS:
            add_row(rows, f"torch {backend}", shape, repeats, time_torch)
    for shape in () if args.tiny else WRITTEN_OUT:
        add_row(rows, "xla", shape, repeats, time_ours)


if __name__ == "__main__":
    main()
