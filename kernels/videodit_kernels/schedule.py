"""Command that prints the simulated performance of the kernels on TPUs.

python -m videodit_kernels.schedule --chip v5e,v6e --head-dim 128 --seq 16384 --pass fwd
"""

from __future__ import annotations

import argparse
import json

from videodit_kernels import norm_performance
from videodit_kernels.attention import performance as attention_performance
from videodit_kernels.simulator import CHIPS


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m videodit_kernels.schedule", description=__doc__)
    parser.add_argument("--op", default="attention", choices=["attention", "adaln", "qknorm"])
    parser.add_argument("--chip", default=",".join(CHIPS), help="comma-separated (default: all)")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--seq", type=int, default=16384)
    parser.add_argument("--heads", type=int, help="default: one per core; 12 for adaln, 1 for qknorm")
    parser.add_argument("--pass", dest="which", choices=["fwd", "bwd"], help="default: both")
    parser.add_argument("--mask", help='what a mask costs, as in "FrameCausal(1560, window=8) & FrameCausal(...)"')
    parser.add_argument("--tune", action="store_true", help="search block sizes, and write them to the committed table")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    unknown = set(options.chip.split(",")) - set(CHIPS)
    if unknown:
        parser.error(f"no chip {', '.join(sorted(unknown))}; there are {', '.join(CHIPS)}")
    if options.op != "attention" and (options.mask or options.tune):
        parser.error(f"--mask and --tune are for attention, not for {options.op}")
    table = attention_performance if options.op == "attention" else norm_performance
    try:
        for row in table.simulate_rows(options):
            print(json.dumps(row) if options.json else table.format_row(row), flush=True)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
