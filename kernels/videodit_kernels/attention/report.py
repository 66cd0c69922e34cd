"""What `schedule` prints of attention: our kernels beside their peers, what a mask costs, and tuned block sizes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videodit_kernels.attention import simulated
from videodit_kernels.attention.tpu.tuned import FILE, table, tuned
from videodit_kernels.schedule import CHIPS

_PEER = {"q": 1024, "kv": 2048, "compute": 512}


def rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row a kernel, from the command line's options.

    Raises:
        ValueError: for a mask that is none, or not for this length.
    """
    for chip in given.chip.split(","):
        shape = {"seq": given.seq, "dim": given.head_dim, "heads": given.heads or CHIPS[chip].cores}
        if given.tune:
            yield _tune(chip, shape)
            continue
        blocks = tuned(chip, given.head_dim, given.seq)
        for which in [given.which] if given.which else ["fwd", "bwd"]:
            kernels = _masked(given.mask) if given.mask else _peers(which)
            for name, run in kernels.items():
                row = {"chip": chip, "pass": which, "kernel": name, **shape}
                try:
                    yield row | run(chip, which, shape, blocks)
                except RuntimeError as error:
                    yield row | {"error": str(error)}


def line(row: dict[str, Any]) -> str:
    """A row for people."""
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


def _peers(which: str) -> dict:
    def run(name, **more):
        def one(chip, which, shape, blocks):
            sizes = {"blocks": list(blocks)} if name == "ours" else _PEER
            report = simulated.run(name, chip, which=which, **shape, **sizes, **more)
            return {**dataclasses.asdict(report), "binding": report.binding}

        return one

    unbounded = {"ours, unbounded": run("ours", bounded=False)} if which == "fwd" else {}
    return {"ours": run("ours"), **unbounded, "splash": run("splash"), "tokamax": run("tokamax")}


def _masked(mask: str) -> dict:
    def one(chip, which, shape, blocks):
        found = simulated.masked(chip, which, **shape, mask=mask, blocks=blocks)
        return {**dataclasses.asdict(found), "time": found.time, "mask": mask}

    return {"ours, masked": one}


def _tune(chip: str, shape: dict[str, int]) -> dict[str, Any]:
    """Search, and put the row into the table in place of that for the same chip, head dim and length."""
    row = simulated.tune(chip, **shape)
    key = ("chip", "head_dim", "seq")
    table.cache_clear()
    kept = [old for old in table() if any(old[k] != row[k] for k in key)]
    ordered = sorted([*kept, row], key=lambda row: [row[k] for k in key])
    Path(str(FILE)).write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in ordered) + "\n]\n")
    return row
