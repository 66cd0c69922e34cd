"""Attention kernels for the simulator: ours, and the public ones to compare with.

The simulator reads scalars in SMEM as zero, so none of these reads a plan: a masked kernel masks every block. The cost
of a mask follows from the cycles of a whole and of a masked block, and from how many there are of each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from videodit_kernels.attention.blocks import PARTIAL, WHOLE, classify_blocks
from videodit_kernels.attention.masks import parse_mask
from videodit_kernels.attention.tpu.backward import backward
from videodit_kernels.attention.tpu.common import Blocks, Problem
from videodit_kernels.attention.tpu.forward import forward
from videodit_kernels.attention.tpu.labels import Labels, Predicate, label_tokens
from videodit_kernels.attention.tpu.op import fit_blocks
from videodit_kernels.attention.tpu.tuned import spare_depth
from videodit_kernels.simulator import Kernel, Report, simulate

Pass = Literal["fwd", "bwd"]

# Tokens that make enough blocks to measure the cycles of one.
SAMPLE_SEQ = 4096


def build_ours(
    which: Pass,
    *,
    seq: int,
    dim: int,
    heads: int,
    kv_seq: int | None = None,
    blocks: list[int] | None = None,
    bounded: bool = True,
    mask: str | None = None,
    mask_seq: int | None = None,
    spare: int = 0,
) -> Kernel:
    """Build a pass of `tpu` with the fields of `Blocks`, or its defaults; a mask is applied in every block.

    There are `kv_seq` keys, `seq` by default; the mask is one for `mask_seq` tokens, likewise, with `spare` slots for a
    block of keys. The backward pass takes `delta` as an argument: computing it reads two arrays once, 2% of the time at
    4096 tokens on v5e.
    """
    sizes, kv_seq = Blocks(*blocks or ()), kv_seq or seq
    predicate, labels = Predicate(), []
    if mask is not None:
        _, predicate, table = label_tokens(
            parse_mask(mask), None, *[mask_seq or seq] * 4, kv_block=sizes.kv, spare=spare
        )
        labels = [jax.ShapeDtypeStruct((*x.shape[:-1], n), jnp.int32) for x, n in ((table.q, seq), (table.kv, kv_seq))]
        if table.values is not None:
            labels.append(jax.ShapeDtypeStruct((kv_seq // sizes.kv, spare), jnp.int32))
    problem = Problem(predicate, dim**-0.5, sizes, False)
    q, kv = (jax.ShapeDtypeStruct((1, heads, length, dim), jnp.bfloat16) for length in (seq, kv_seq))
    row = jax.ShapeDtypeStruct((1, heads, 1, seq), jnp.float32)
    if which == "fwd":
        run = functools.partial(forward, problem=problem, bounded=bounded)
        arguments = [q, kv, kv]
    else:
        run = functools.partial(backward, problem=problem, kv_dtype=jnp.dtype("bfloat16"))
        arguments = [q, kv, kv, q, row, row]

    def fn(*args):
        tokens, tables = args[: len(arguments)], args[len(arguments) :]
        return run(*tokens, Labels(*tables) if tables else None, None)

    steps = heads * -(-seq // sizes.q) * -(-kv_seq // sizes.kv)
    flops = _flops(which, seq * kv_seq, dim, heads)
    return Kernel(fn, [*arguments, *labels], f"videodit_attention_{which}", flops, steps)


def simulate_kernel(builder: str, chip: str, timeout: float = 600.0, **arguments: Any) -> Report:
    """Simulate the kernel of a builder of this file."""
    return simulate(f"{__spec__.name}:{builder}", arguments, chip, timeout)


@dataclass(frozen=True)
class MaskCost:
    """Cost of a mask: shares of all blocks, cycles of a block, and time as a share of that without the mask."""

    kept: float
    partial: float
    whole_cycles: float
    partial_cycles: float

    @property
    def time(self) -> float:
        """Return the tile counts times the tile cycles."""
        return self.kept - self.partial + self.partial * self.partial_cycles / self.whole_cycles


def simulate_mask_cost(
    chip: str, which: Pass, *, seq: int, dim: int, heads: int, mask: str, blocks: Blocks
) -> MaskCost:
    """Count the mask's blocks at `seq` tokens, and simulate a whole and a masked one."""
    sizes, q_padded, kv_padded = fit_blocks(blocks, seq, seq)
    rule, _, labels = label_tokens(parse_mask(mask), None, seq, seq, q_padded, kv_padded)
    kinds = classify_blocks(rule, labels.q, labels.kv, sizes.q, sizes.kv)
    masked = {"mask": mask, "mask_seq": seq, "spare": spare_depth(chip, dim)}
    sample = {"which": which, "seq": min(SAMPLE_SEQ, seq), "dim": dim, "heads": heads, "blocks": list(blocks)}
    whole, part = simulate_kernel("build_ours", chip, **sample), simulate_kernel("build_ours", chip, **sample, **masked)
    shares = [float((kinds == kind).mean()) for kind in (WHOLE, PARTIAL)]
    return MaskCost(sum(shares), shares[1], whole.step_cycles, part.step_cycles)


def search_block_sizes(chip: str, *, dim: int, seq: int, heads: int) -> dict[str, Any]:
    """Find the block sizes that are fastest in the simulator, and the shares of peak they reach: a row of `tuned.json`.

    Sizes of blocks and of the forward's products first, then those of the backward's.
    """
    shape = {"seq": seq, "dim": dim, "heads": heads}

    def best(which: Pass, candidates: list[Blocks]) -> tuple[float, Blocks]:
        results = []
        for blocks in candidates:
            try:
                results.append(
                    (simulate_kernel("build_ours", chip, which=which, **shape, blocks=list(blocks)).share, blocks)
                )
            except RuntimeError:  # the kernel does not fit, or the simulation does not end
                continue
        if not results:
            raise RuntimeError(f"no block sizes worked for {chip}, head dim {dim}, {which}")
        return max(results)

    forward_share, blocks = best("fwd", [Blocks(q=q, keys=keys) for q in (1024, 2048) for keys in (256, 512, 1024)])
    chunks = [(queries, keys) for queries in (256, 512) for keys in (256, 512)]
    backward_share, blocks = best("bwd", [blocks._replace(d_queries=q, d_keys=k) for q, k in chunks])
    shares = {"forward": round(forward_share, 3), "backward": round(backward_share, 3)}
    return {"chip": chip, "head_dim": dim, "seq": seq, **blocks._asdict(), **shares}


def build_splash(which: Pass, *, seq: int, dim: int, heads: int, q: int, kv: int, compute: int) -> Kernel:
    """Build JAX's splash attention, its backward fused, full mask."""
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
    attend = kernel.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1)
    # A full mask needs no tables, and the simulator would read them as zeros.
    for name in ("fwd_mask_info", "dkv_mask_info"):
        setattr(attend, name, getattr(attend, name)._replace(data_next=None, block_mask=None, mask_next=None))
    return _public_kernel(attend, which, seq, dim, heads, (heads, seq, dim), -(-seq // q) * -(-seq // kv) * heads)


def build_tokamax(which: Pass, *, seq: int, dim: int, heads: int, q: int, kv: int, compute: int) -> Kernel:
    """Build tokamax's splash attention, full mask."""
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as kernel
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_mask as masks

    config = kernel.SplashConfig(
        block_q=q,
        block_kv=kv,
        block_kv_compute=compute,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=compute,
        use_base2_exp=True,
    )
    attend = kernel.make_splash_mha(masks.FullMask((seq, seq)), config=config, q_seq_shards=1)
    return _public_kernel(attend, which, seq, dim, heads, (heads, seq, dim), -(-seq // q) * -(-seq // kv) * heads)


def _public_kernel(attend, which: Pass, seq: int, dim: int, heads: int, shape: tuple[int, ...], steps: int) -> Kernel:
    def value(q, k, v):
        return attend(q, k, v).astype(jnp.float32).sum()

    fn = attend if which == "fwd" else jax.grad(value, argnums=(0, 1, 2))
    name = "splash_mha_fwd" if which == "fwd" else "splash_mha_dkv"
    arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16)] * 3
    excluded_prefix = "nothing" if which == "fwd" else "splash_mha_fwd"
    return Kernel(lambda *args: fn(*args), arguments, name, _flops(which, seq**2, dim, heads), steps, excluded_prefix)


def _flops(which: Pass, pairs: int, dim: int, heads: int) -> int:
    """Count FLOPs of the products alone: two forward, five backward."""
    return {"fwd": 2, "bwd": 5}[which] * 2 * heads * pairs * dim
