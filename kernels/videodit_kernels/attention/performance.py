"""Simulated performance of attention: our kernels against public ones, the cost of a mask, and tuned block sizes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videodit_kernels.attention import simulated
from videodit_kernels.attention.tpu.tuned import FILE, load_table, lookup_blocks
from videodit_kernels.simulator import CHIPS

_PUBLIC_BLOCKS = {"q": 1024, "kv": 2048, "compute": 512}


def simulate_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each kernel, from the command line's options.

    Raises:
        ValueError: for a mask that does not parse, or that does not fit the length.
    """
    for chip in options.chip.split(","):
        shape = {"seq": options.seq, "dim": options.head_dim, "heads": options.heads or CHIPS[chip].cores}
        if options.tune:
            yield _tune(chip, shape)
            continue
        blocks = lookup_blocks(chip, options.head_dim, options.seq)
        for which in [options.which] if options.which else ["fwd", "bwd"]:
            kernels = _mask_runs(options.mask) if options.mask else _kernel_runs(which)
            for name, run in kernels.items():
                row = {"chip": chip, "pass": which, "kernel": name, **shape}
                try:
                    yield row | run(chip, which, shape, blocks)
                except RuntimeError as error:
                    yield row | {"error": str(error)}


def format_row(row: dict[str, Any]) -> str:
    """Format a row as text."""
    if "pass" not in row:
        return ", ".join(f"{name} {value}" for name, value in row.items())
    start = f"{row['chip']:6}{row['pass']:4} {row['kernel']:16} "
    if "error" in row:
        return start + row["error"]
    if "kept" in row:
        return start + (
            f"{row['kept']:6.1%} of blocks kept, {row['partial']:.1%} in part, which cost {row['partial_cycles']:.0f} "
            f"cycles for {row['whole_cycles']:.0f}: {row['time']:6.1%} of the time without a mask"
        )
    return start + (
        f"{row['cycles']:>10} cycles {row['tflops']:7.1f} TFLOP/s {row['share']:6.1%} of peak, {row['binding']} busy "
        f"{row['busy'][row['binding']]:4.0%}, {row['spills']} spills"
    )


def _kernel_runs(which: str) -> dict:
    def run(name, **more):
        def one(chip, which, shape, blocks):
            sizes = {"blocks": list(blocks)} if name == "build_ours" else _PUBLIC_BLOCKS
            report = simulated.simulate_kernel(name, chip, which=which, **shape, **sizes, **more)
            return {**dataclasses.asdict(report), "binding": report.binding}

        return one

    unbounded = {"ours, unbounded": run("build_ours", bounded=False)} if which == "fwd" else {}
    return {"ours": run("build_ours"), **unbounded, "splash": run("build_splash"), "tokamax": run("build_tokamax")}


def _mask_runs(mask: str) -> dict:
    def one(chip, which, shape, blocks):
        cost = simulated.simulate_mask_cost(chip, which, **shape, mask=mask, blocks=blocks)
        return {**dataclasses.asdict(cost), "time": cost.time, "mask": mask}

    return {"ours, masked": one}


def _tune(chip: str, shape: dict[str, int]) -> dict[str, Any]:
    """Search block sizes, and replace the table's row for the same chip, head dim and length."""
    row = simulated.search_block_sizes(chip, **shape)
    key = ("chip", "head_dim", "seq")
    load_table.cache_clear()
    others = [old for old in load_table() if any(old[k] != row[k] for k in key)]
    ordered = sorted([*others, row], key=lambda row: [row[k] for k in key])
    Path(str(FILE)).write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in ordered) + "\n]\n")
    return row
