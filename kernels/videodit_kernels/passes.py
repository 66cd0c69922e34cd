"""What `schedule` prints of kernels that make one pass over memory: ours beside what XLA makes of the formulas."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from videodit_kernels.schedule import CHIPS, cycles

# adaLN is over the width of the model; of QK-norm, the simulator can only have one head.
_HEADS = {"adaln": 12, "qknorm": 1}


def rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row a program, from the command line's options; of these two, "bwd" has the forward pass in it."""
    shape = {"seq": given.seq, "dim": given.head_dim, "heads": given.heads or _HEADS[given.op]}
    for chip in given.chip.split(","):
        for which in [given.which] if given.which else ["fwd", "bwd"]:
            for name, ours in (("ours", True), ("XLA", False)):
                row = {"op": given.op, "chip": chip, "pass": which, "kernel": name, **shape}
                builder = f"videodit_kernels.{given.op}.simulated:program"
                try:
                    found = cycles(builder, {"which": which, "ours": ours, **shape}, chip)
                    yield row | {"cycles": found, "milliseconds": found / CHIPS[chip].ghz / 1e6}
                except RuntimeError as error:
                    yield row | {"error": str(error)}


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    passes = {"fwd": "forward", "bwd": "forward and backward"}[row["pass"]]
    start = f"{row['chip']:6}{passes:21} {row['kernel']:5} "
    return start + (row["error"] if "error" in row else f"{row['cycles']:>10} cycles {row['milliseconds']:8.3f} ms")
