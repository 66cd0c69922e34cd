"""Simulated performance of the norm kernels (adaLN, QK-norm), which make one pass over memory, against XLA's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from videodit_kernels.simulator import CHIPS, simulate_cycles

# adaLN is over the width of the model; the simulator supports QK-norm of only one head.
_HEADS = {"adaln": 12, "qknorm": 1}


def simulate_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each program, from the command line's options; "bwd" includes the forward pass."""
    shape = {"seq": options.seq, "dim": options.head_dim, "heads": options.heads or _HEADS[options.op]}
    for chip in options.chip.split(","):
        for which in [options.which] if options.which else ["fwd", "bwd"]:
            for name, ours in (("ours", True), ("XLA", False)):
                row = {"op": options.op, "chip": chip, "pass": which, "kernel": name, **shape}
                builder = f"videodit_kernels.{options.op}.simulated:build_kernel"
                try:
                    cycles = simulate_cycles(builder, {"which": which, "ours": ours, **shape}, chip)
                    yield row | {"cycles": cycles, "milliseconds": cycles / CHIPS[chip].ghz / 1e6}
                except RuntimeError as error:
                    yield row | {"error": str(error)}


def format_row(row: dict[str, Any]) -> str:
    """Format a row as text."""
    passes = {"fwd": "forward", "bwd": "forward and backward"}[row["pass"]]
    start = f"{row['chip']:6}{passes:21} {row['kernel']:5} "
    return start + (row["error"] if "error" in row else f"{row['cycles']:>10} cycles {row['milliseconds']:8.3f} ms")
