"""The table of docs/attention.md: simulated share of a TPU's bfloat16 peak that the attention kernels reach.

    python experiments/bench/attention.py [--seq 16384]

Needs Python 3.12, jax 0.12.0.1 and libtpu 0.0.52, no TPU; a minute a cell on one core.
"""

import argparse

from videodit_kernels.attention.tpu.common import Blocks
from videodit_kernels.schedule import CHIPS, simulate

COLUMNS = (("v5e", 128), ("v5e", 64), ("v5p", 128), ("v6e", 128), ("v6e", 64), ("tpu7x", 128))
ROWS = {
    "forward, bounded logits": {"which": "fwd"},
    "forward, any logits": {"which": "fwd", "bounded": False},
    "backward": {"which": "bwd"},
}
# Where the default is not the best that was found.
TUNED = {("v6e", 64, "bwd"): Blocks(d_queries=512)}


def cell(chip: str, dim: int, seq: int, which: str, **more) -> str:
    """The share of peak in percent, or what went wrong."""
    shape = {"which": which, "dim": dim, "seq": seq, "heads": CHIPS[chip].cores}
    blocks = TUNED.get((chip, dim, which), Blocks())
    try:
        report = simulate("videodit_kernels.attention.simulated:ours", {**shape, **more, "blocks": blocks}, chip)
    except RuntimeError as error:
        return str(error)
    return f"{100 * report.share:.1f}"


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seq", type=int, default=16384)
    seq = parser.parse_args().seq
    print("| |", " | ".join(f"{chip} {dim}" for chip, dim in COLUMNS), "|\n" + "|---" * (len(COLUMNS) + 1) + "|")
    for name, more in ROWS.items():
        print(f"| {name} |", end="", flush=True)
        for chip, dim in COLUMNS:
            print(f" {cell(chip, dim, seq, **more)} |", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
