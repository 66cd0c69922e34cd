"""Attention on an NVIDIA GPU: TFLOP/s forward and backward, beside PyTorch's SDPA on the same machine.

    python experiments/bench/attention_gpu.py --seq 16384,32768 --heads 24 --head-dim 128

Ours first (`gpu` is cuDNN; `--implementation xla` for another), then, where PyTorch is installed, its cuDNN and flash
backends. Full attention in bfloat16, batch 1. Flops are 4 T^2 H a head forward and 10 T^2 H backward; times are medians
of `--repeats`, the backward that of forward and backward less that of the forward.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from videodit_kernels.attention import attention


def seconds(run: Callable[[], object], wait: Callable[[object], object], repeats: int) -> float:
    """The median time of a call, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        wait(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def ours(implementation: str, shape: tuple[int, ...], repeats: int) -> tuple[float, float]:
    """Seconds of the forward, and of forward and backward."""
    q, k, v, d_out = (jax.random.normal(key, shape, jnp.bfloat16) for key in jax.random.split(jax.random.key(0), 4))

    def forward(q, k, v):
        return attention(q, k, v, implementation=implementation)

    def both(q, k, v, d_out):
        return jax.vjp(forward, q, k, v)[1](d_out)

    compiled = jax.jit(forward), jax.jit(both)
    return (
        seconds(lambda: compiled[0](q, k, v), jax.block_until_ready, repeats),
        seconds(lambda: compiled[1](q, k, v, d_out), jax.block_until_ready, repeats),
    )


def torch_sdpa(backend: str, shape: tuple[int, ...], repeats: int) -> tuple[float, float]:
    """The same of PyTorch's scaled_dot_product_attention."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, length, heads, dim = shape
    q, k, v, d_out = (torch.randn(batch, heads, length, dim, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_()

    def forward():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def both():
        return torch.autograd.grad(forward(), (q, k, v), d_out)

    with sdpa_kernel(getattr(SDPBackend, backend)):
        return tuple(seconds(run, lambda _: torch.cuda.synchronize(), repeats) for run in (forward, both))


def main() -> None:
    """Print a line a length and implementation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", default="16384,32768", help="comma-separated")
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--implementation", default="gpu", help="comma-separated, of videodit_kernels.attention")
    given = parser.parse_args()
    cases = {name: (ours, name) for name in given.implementation.split(",")}
    try:
        import torch

        if torch.cuda.is_available():
            cases |= {f"torch {name}": (torch_sdpa, name) for name in ("CUDNN_ATTENTION", "FLASH_ATTENTION")}
    except ImportError:
        print("PyTorch is not installed: its kernels are left out")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for length in map(int, given.seq.split(",")):
        shape = (1, length, given.heads, given.head_dim)
        product = 2 * length**2 * given.heads * given.head_dim
        for name, (run, which) in cases.items():
            forward, both = run(which, shape, given.repeats)
            rates = [flops / time / 1e12 for flops, time in ((2 * product, forward), (5 * product, both - forward))]
            print(f"{length:>7} {name:24} forward {rates[0]:7.1f} TFLOP/s, backward {rates[1]:7.1f}", flush=True)


if __name__ == "__main__":
    main()
