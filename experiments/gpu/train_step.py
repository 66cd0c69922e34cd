"""The trainer's own step on the accelerators of this machine: seconds, TFLOP/s and MFU.

    python experiments/gpu/train_step.py                                          # the cases below
    python experiments/gpu/train_step.py --config configs/wan.py:1.3b --batch 2 --config.model.remat=attention

Weights and latents are random, captions have the maximum length. MFU counts the model's FLOPs
(without recomputation) over the peak in `videodit/parallel/chips.py`.
"""

import argparse
import dataclasses
import math
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from timing import Rows, first_sentence

from videodit.config.io import load
from videodit.config.run import DiTRun
from videodit.parallel.chips import find_chip
from videodit.parallel.mesh import make_mesh
from videodit.plan.program import build_train_program

# Configuration, batch size, overrides: for one device of 141 GB, the most valuable first.
CASES = (
    ("configs/dit.py:B", 64, ("--config.model.remat=attention",)),
    ("configs/wan.py:1.3b", 1, ("--config.model.remat=attention",)),
    ("configs/wan.py:1.3b", 2, ("--config.model.remat=full",)),
    ("configs/dit.py:B", 64, ("--config.model.remat=none",)),
)
_SMALL = ("model.depth=1", "data.height=32", "data.width=32", "text.depth=1", "text.vocab_size=256", "text.num_heads=2")
TINY = (("configs/dit.py:toy", 1, tuple(f"--config.{override}" for override in _SMALL)),)


def make_arrays(shapes: Any, mean: float = 0.0, half_range: float = 0.0) -> Any:
    """Return arrays of these shapes and shardings.

    Floats are `mean`, or uniform within `half_range` of it; booleans are True, integers 0.
    """
    leaves, tree = jax.tree.flatten(shapes)

    def fill() -> list[jax.Array]:
        keys = jax.random.split(jax.random.key(0), len(leaves))
        return [
            (mean + half_range * jax.random.uniform(key, x.shape, minval=-1.0)).astype(x.dtype)
            if half_range and jnp.issubdtype(x.dtype, jnp.floating)
            else jnp.full(x.shape, mean if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype == jnp.bool_, x.dtype)
            for key, x in zip(keys, leaves, strict=True)
        ]

    return tree.unflatten(jax.jit(fill, out_shardings=[x.sharding for x in leaves])())


def measure(run: DiTRun, steps: int) -> dict[str, Any]:
    """Compile a run's training step, time `steps` calls after two that are not timed, and return the results."""
    mesh = make_mesh(run.mesh, heads=run.heads)
    program = build_train_program(run, mesh)
    start = time.perf_counter()
    compiled = program.compile(mesh)
    compile_seconds = time.perf_counter() - start
    shapes, batch_shapes, frozen_shapes = program.arguments
    state = dataclasses.replace(make_arrays(shapes), params=make_arrays(shapes.params, half_range=0.03))
    # Frame rates are positive. Of the autoencoder only the scale of its latents is read.
    batch, frozen = make_arrays(batch_shapes, mean=1.0, half_range=0.9), make_arrays(frozen_shapes, mean=1.0)
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        state, metrics = compiled(state, batch, frozen)
        loss = float(metrics["loss"])  # waits for the step to end
        times.append(time.perf_counter() - start)
    devices, seconds = jax.devices(), statistics.median(times[2:])
    chip, rate = find_chip(devices[0].device_kind), program.model_flops / seconds / len(devices)
    memory = compiled.memory_analysis()
    peak = (devices[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "compile_s": round(compile_seconds, 1),
        "step_s": seconds,
        "steps_timed": steps,
        "clips_per_s": run.data.batch_size / seconds,
        "tokens_per_s": program.tokens / seconds,
        "tflops_per_device": rate / 1e12,
        "mfu": chip and rate / chip.flops,
        "arguments_bytes": memory.argument_size_in_bytes,
        "temporaries_bytes": memory.temp_size_in_bytes,
        "peak_bytes": peak,
        "loss": loss if math.isfinite(loss) else None,
    }


def add_row(rows: Rows, config: str, batch: int | None, overrides: tuple[str, ...], steps: int) -> None:
    """Measure one configuration and add its row."""
    run = load(config, overrides)
    if not isinstance(run, DiTRun):
        raise ValueError(f"{config} is no transformer's configuration")
    if batch:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, batch_size=batch))
    row = {"config": config, "batch": run.data.batch_size, "remat": run.model.remat, "overrides": list(overrides)}
    row["clip"] = [run.data.frames, run.data.height, run.data.width]
    try:
        rows.add(**row, **measure(run, steps))
    except Exception as problem:  # out of memory, say: the next case may fit
        rows.add(**row, error=first_sentence(problem))


def main() -> None:
    """Add a row per configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="one configuration, FILE.py:VARIANT, instead of the cases")
    parser.add_argument("--batch", type=int, help="its batch size in clips")
    parser.add_argument("--steps", type=int, default=8, help="number of steps to time, after two that are not timed")
    parser.add_argument("--rows", type=Path, help="file that results are appended to, one JSON object per line")
    parser.add_argument("--tiny", action="store_true", help="one small case, on any device")
    args, overrides = parser.parse_known_args()
    cases = TINY if args.tiny else CASES
    if args.config:
        cases = ((args.config, args.batch, tuple(overrides)),)
    rows = Rows(args.rows)
    for config, batch, case_overrides in cases:
        add_row(rows, config, batch, case_overrides, 1 if args.tiny else args.steps)


if __name__ == "__main__":
    main()
