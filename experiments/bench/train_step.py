"""The trainer's own step on the accelerators at hand: seconds, FLOP/s and MFU, beside what its FLOPs allow at best.

    python experiments/bench/train_step.py --config configs/wan.py:1.3b --batch 1 --config.model.remat=attention

Weights and batches are random, captions as long as they may be. Prediction: the FLOPs of the same step as XLA compiles
it for a CPU, recomputation included, at the peak of the matrix unit. It says a table's row for docs/benchmarks.md.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from videodit.config.io import load
from videodit.config.run import DiTRun
from videodit.parallel.chips import chip_of
from videodit.parallel.mesh import make_mesh
from videodit.plan.compile import compile_plan
from videodit.plan.program import train_program
from videodit.plan.topology import Topology


def made(shapes: Any, key: jax.Array, scale: float = 1.0) -> Any:
    """Arrays of these shapes in their places: random floats, ones for masks, zeros for counts and token ids."""
    leaves, tree = jax.tree.flatten(shapes)

    def make(key: jax.Array) -> list[jax.Array]:
        return [
            scale * jax.random.normal(jax.random.fold_in(key, at), x.shape, jnp.float32).astype(x.dtype)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else jnp.full(x.shape, x.dtype == jnp.bool_, x.dtype)
            for at, x in enumerate(leaves)
        ]

    return tree.unflatten(jax.jit(make, out_shardings=[x.sharding for x in leaves])(key))


def main() -> None:
    """Print the row, and what it is of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--vae", help="configuration of the autoencoder, FILE.py:VARIANT (default: Wan's shape)")
    parser.add_argument("--batch", type=int, help="clips of a step")
    parser.add_argument("--steps", type=int, default=10, help="timed, after three that are not")
    given, overrides = parser.parse_known_args()
    run = load(given.config, overrides)
    if given.batch:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, batch_size=given.batch))
    if not isinstance(run, DiTRun):
        parser.error(f"{given.config} is no transformer's")
    vae = given.vae and load(given.vae)
    predicted = compile_plan(run, Topology.parse(f"cpu:{jax.device_count()}"), vae=vae or None).flops_per_step

    mesh = make_mesh(run.mesh, heads=run.heads)
    program = train_program(run, mesh, vae.model if vae else None)
    compiled = program.compile(mesh)
    shapes, *rest = program.arguments
    weights = made(shapes.params, jax.random.key(0), 0.02)
    state = dataclasses.replace(made(shapes, jax.random.key(0), 0.0), params=weights)
    batch, frozen = made(rest, jax.random.key(1))
    times = []
    for _ in range(given.steps + 3):
        start = time.perf_counter()
        state, metrics = compiled(state, batch, frozen)
        loss = float(metrics["loss"])  # waits
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[3:])

    device = jax.devices()[0]
    chip, count = chip_of(device.device_kind), jax.device_count()
    print(f"{count} x {device.device_kind}, jax {jax.__version__}, loss {loss:.4f}, {compiled.memory_analysis()}")
    print("| configuration | tokens a clip | batch | remat | predicted, s | measured, s | TFLOP/s a device | MFU |")
    print("|---|---|---|---|---|---|---|---|")
    rate = program.model_flops / seconds / count
    cells = [f"`{given.config}`", program.task.tokens_per_clip, run.data.batch_size, run.model.remat]
    cells += [f"from {predicted['hardware'] / count / chip.flops:.3f}" if chip else "-", f"{seconds:.3f}"]
    cells += [f"{rate / 1e12:.1f}", f"{rate / chip.flops:.1%}" if chip else "-"]
    print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
