"""Bytes that XLA moves between the projections of queries and keys and attention (docs/benchmarks.md).

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 PYTHONPATH=.venv/libtpu .venv/bin/python experiments/bench/qknorm_bytes.py

Compiles for the target topology; the bytes of our kernel are counted from its arrays, since XLA cannot see into it.
"""

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from videodit_kernels.qknorm import norm_rope
from videodit_kernels.simulator import CHIPS

TOKENS, HEADS, DIM = 32768, 12, 128


def project(tokens, kernels, scales, cos, sin, rotate: bool):
    """Compute queries and keys in the layout of the attention kernels, [1, N, T, H]; `rotate` adds QK-norm and RoPE."""
    projections = [jnp.einsum("bld,dnh->blnh", tokens, kernel) for kernel in kernels]
    if rotate:
        projections = [
            norm_rope(x, g, cos, sin, implementation="reference") for x, g in zip(projections, scales, strict=True)
        ]
    return [x.swapaxes(1, 2) for x in projections]


def megabytes(chip: str, backward: bool, rotate: bool) -> float:
    """Return the megabytes that the program compiled by XLA moves."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip].topology).devices
    mesh, whole = Mesh(devices[:1], ("device",)), PartitionSpec()

    def array(*shape, dtype="bfloat16"):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, whole))

    kernels, scales = [array(HEADS * DIM, HEADS, DIM)] * 2, [array(DIM, dtype="float32")] * 2
    angles = [array(1, TOKENS, DIM // 2, dtype="float32")] * 2

    def gradients(tokens, kernels, scales, cos, sin, cotangents):
        return jax.vjp(lambda *x: project(*x, cos, sin, rotate), tokens, kernels, scales)[1](cotangents)

    def forward(*x):
        return project(*x, rotate)

    arguments = [array(1, TOKENS, HEADS * DIM), kernels, scales, *angles]
    arguments += [[array(1, HEADS, TOKENS, DIM)] * 2] * backward
    fn = gradients if backward else forward
    fn = jax.shard_map(fn, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    return jax.jit(fn).lower(*arguments).compile().cost_analysis()["bytes accessed"] / 1e6


def main() -> None:
    """Print a row per chip and pass."""
    array, angles = 2 * TOKENS * HEADS * DIM / 1e6, 4 * TOKENS * DIM / 1e6
    for chip in ("v5e", "v6e"):
        for name, backward in (("forward", False), ("backward", True)):
            xla = megabytes(chip, backward, True) - megabytes(chip, backward, False)
            ours = 2 * ((3 if backward else 2) * array + angles)
            print(f"{chip} {name}: XLA {xla:.0f} MB, our kernel {ours:.0f} MB")


if __name__ == "__main__":
    main()
