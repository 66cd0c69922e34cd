"""Attention kernels as `schedule` simulates them: ours, and the public ones to compare with.

The simulator reads scalars in SMEM as zero, so none of these reads a plan: a masked kernel judges every block.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from videodit_kernels.attention.masks import Mask
from videodit_kernels.attention.tpu.backward import backward
from videodit_kernels.attention.tpu.common import Blocks, Problem
from videodit_kernels.attention.tpu.forward import forward
from videodit_kernels.attention.tpu.labels import Labels, label
from videodit_kernels.schedule import Kernel

Pass = Literal["fwd", "bwd"]


def ours(
    which: Pass,
    *,
    seq: int,
    dim: int,
    heads: int,
    blocks: list[int] | None = None,
    bounded: bool = True,
    mask: Mask | None = None,
) -> Kernel:
    """A pass of `tpu` with the fields of `Blocks`, or its defaults; with a mask, every block is judged pair by pair.

    The backward pass is given its `delta`, whose making reads two arrays once: 2% of the time at 4096 tokens on v5e.
    """
    sizes = Blocks(*blocks or ())
    _, judge, labels = label(mask, None, seq, seq, seq, seq)
    shapes = [] if labels is None else [jax.ShapeDtypeStruct(x.shape, jnp.int32) for x in labels]
    problem = Problem(judge, dim**-0.5, sizes, False)
    wide = jax.ShapeDtypeStruct((1, heads, seq, dim), jnp.bfloat16)
    row = jax.ShapeDtypeStruct((1, heads, 1, seq), jnp.float32)
    if which == "fwd":
        run = functools.partial(forward, problem=problem, bounded=bounded)
        arguments = [wide] * 3
    else:
        run = functools.partial(backward, problem=problem, kv_dtype=jnp.dtype("bfloat16"))
        arguments = [wide] * 4 + [row] * 2

    def fn(*args):
        tokens, tables = args[: len(arguments)], args[len(arguments) :]
        return run(*tokens, Labels(*tables) if tables else None, None)

    steps = heads * -(-seq // sizes.q) * -(-seq // sizes.kv)
    return Kernel(fn, [*arguments, *shapes], f"videodit_attention_{which}", _flops(which, seq, dim, heads), steps)


def splash(which: Pass, *, seq: int, dim: int, heads: int, q: int, kv: int, compute: int) -> Kernel:
    """JAX's splash attention, its backward fused, full mask."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    sizes = kernel.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=compute,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=compute,
        use_fused_bwd_kernel=True,
    )
    mask = masks.MultiHeadMask([masks.FullMask((seq, seq))] * heads)
    made = kernel.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1)
    # A full mask needs no tables, and the simulator would read them as zeros.
    for name in ("fwd_mask_info", "dkv_mask_info"):
        setattr(made, name, getattr(made, name)._replace(data_next=None, block_mask=None, mask_next=None))
    return _peer(made, which, seq, dim, heads, (heads, seq, dim), -(-seq // q) * -(-seq // kv) * heads)


def tokamax(which: Pass, *, seq: int, dim: int, heads: int, q: int, kv: int, compute: int) -> Kernel:
    """tokamax's splash attention, full mask."""
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as kernel
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_mask as masks

    sizes = {"block_q": q, "block_kv": kv, "block_kv_compute": compute}
    config = kernel.SplashConfig(
        **sizes,
        **({f"{name}_dkv" if "compute" not in name else "block_kv_dkv_compute": size for name, size in sizes.items()}),
        use_base2_exp=True,
    )
    made = kernel.make_splash_mha(masks.FullMask((seq, seq)), config=config, q_seq_shards=1)
    return _peer(made, which, seq, dim, heads, (heads, seq, dim), -(-seq // q) * -(-seq // kv) * heads)


def _peer(made, which: Pass, seq: int, dim: int, heads: int, shape: tuple[int, ...], steps: int) -> Kernel:
    def value(q, k, v):
        return made(q, k, v).astype(jnp.float32).sum()

    fn = made if which == "fwd" else jax.grad(value, argnums=(0, 1, 2))
    name = "splash_mha_fwd" if which == "fwd" else "splash_mha_dkv"
    arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16)] * 3
    aside = "nothing" if which == "fwd" else "splash_mha_fwd"
    return Kernel(lambda *args: fn(*args), arguments, name, _flops(which, seq, dim, heads), steps, aside)


def _flops(which: Pass, seq: int, dim: int, heads: int) -> int:
    """Of the products alone: two forward, five backward."""
    return {"fwd": 2, "bwd": 5}[which] * 2 * heads * seq * seq * dim
