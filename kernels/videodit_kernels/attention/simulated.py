"""Attention kernels as `schedule` simulates them: ours, and the public ones to compare with.

The simulator reads scalars in SMEM as zero, so none of these reads a plan: a masked kernel judges every block. What a
mask costs is then told from the cycles of a whole and of a masked block, and how many there are of each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from videodit_kernels.attention.blocks import PARTIAL, WHOLE, classify
from videodit_kernels.attention.masks import parse
from videodit_kernels.attention.tpu.backward import backward
from videodit_kernels.attention.tpu.common import Blocks, Problem
from videodit_kernels.attention.tpu.forward import forward
from videodit_kernels.attention.tpu.labels import Judge, Labels, label
from videodit_kernels.attention.tpu.op import fit
from videodit_kernels.attention.tpu.tuned import spare
from videodit_kernels.schedule import Kernel, Report, simulate

Pass = Literal["fwd", "bwd"]

# Enough blocks to see what one costs, at little cost.
FEW = 4096


def ours(
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
    """A pass of `tpu` with the fields of `Blocks`, or its defaults; with a mask, every block is judged pair by pair.

    There are `kv_seq` keys, `seq` by default; the mask is one for `mask_seq` tokens, likewise, with `spare` slots for a
    block of keys. The backward pass gets its `delta`, whose making reads two arrays once: 2% of the time at 4096 tokens
    on v5e.
    """
    sizes, kv_seq = Blocks(*blocks or ()), kv_seq or seq
    judge, labels = Judge(), []
    if mask is not None:
        _, judge, made = label(parse(mask), None, *[mask_seq or seq] * 4, kv_block=sizes.kv, spare=spare)
        labels = [jax.ShapeDtypeStruct((*x.shape[:-1], n), jnp.int32) for x, n in ((made.q, seq), (made.kv, kv_seq))]
        if made.values is not None:
            labels.append(jax.ShapeDtypeStruct((kv_seq // sizes.kv, spare), jnp.int32))
    problem = Problem(judge, dim**-0.5, sizes, False)
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


def run(name: str, chip: str, timeout: float = 600.0, **arguments: Any) -> Report:
    """Simulate a builder of this file."""
    return simulate(f"{__spec__.name}:{name}", arguments, chip, timeout)


@dataclass(frozen=True)
class Masked:
    """What a mask costs: shares of all blocks, cycles of a block, and time as a share of that without the mask."""

    kept: float
    partial: float
    whole_cycles: float
    partial_cycles: float

    @property
    def time(self) -> float:
        """Tile counts times tile cycles."""
        return self.kept - self.partial + self.partial * self.partial_cycles / self.whole_cycles


def masked(chip: str, which: Pass, *, seq: int, dim: int, heads: int, mask: str, blocks: Blocks) -> Masked:
    """Count the mask's blocks at `seq` tokens, and simulate whole and masked ones."""
    sizes, q_padded, kv_padded = fit(blocks, seq, seq)
    rule, _, labels = label(parse(mask), None, seq, seq, q_padded, kv_padded)
    kinds = classify(rule, labels.q, labels.kv, sizes.q, sizes.kv)
    spread = {"mask": mask, "mask_seq": seq, "spare": spare(chip, dim)}
    few = {"which": which, "seq": min(FEW, seq), "dim": dim, "heads": heads, "blocks": list(blocks)}
    whole, part = run("ours", chip, **few), run("ours", chip, **few, **spread)
    shares = [float((kinds == kind).mean()) for kind in (WHOLE, PARTIAL)]
    return Masked(sum(shares), shares[1], whole.step_cycles, part.step_cycles)


def tune(chip: str, *, dim: int, seq: int, heads: int) -> dict[str, Any]:
    """The block sizes that the simulator finds fastest, and the shares of peak they reach: a row of `tuned.json`.

    Sizes of blocks and of the forward's products first, then those of the backward's.
    """
    shape = {"seq": seq, "dim": dim, "heads": heads}

    def best(which: Pass, candidates: list[Blocks]) -> tuple[float, Blocks]:
        found = []
        for blocks in candidates:
            try:
                found.append((run("ours", chip, which=which, **shape, blocks=list(blocks)).share, blocks))
            except RuntimeError:  # it does not fit, or does not end
                continue
        if not found:
            raise RuntimeError(f"no block sizes worked for {chip}, head dim {dim}, {which}")
        return max(found)

    forward_share, blocks = best("fwd", [Blocks(q=q, keys=keys) for q in (1024, 2048) for keys in (256, 512, 1024)])
    chunks = [(queries, keys) for queries in (256, 512) for keys in (256, 512)]
    backward_share, blocks = best("bwd", [blocks._replace(d_queries=q, d_keys=k) for q, k in chunks])
    shares = {"forward": round(forward_share, 3), "backward": round(backward_share, 3)}
    return {"chip": chip, "head_dim": dim, "seq": seq, **blocks._asdict(), **shares}


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
    return Kernel(lambda *args: fn(*args), arguments, name, _flops(which, seq**2, dim, heads), steps, aside)


def _flops(which: Pass, pairs: int, dim: int, heads: int) -> int:
    """Of the products alone: two forward, five backward."""
    return {"fwd": 2, "bwd": 5}[which] * 2 * heads * pairs * dim
