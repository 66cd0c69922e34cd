"""The tables of docs/attention.md: performance of the attention kernels in libtpu's simulator.

    PYTHONPATH=.venv/libtpu .venv/bin/python experiments/bench/attention.py [--table full|masks] [--chip v5e,v6e]

Needs libtpu (`make test` puts it into .venv/libtpu), no TPU. A cell takes up to two minutes on one core.
"""

import argparse
from collections.abc import Callable

from videodit_kernels.attention import simulated
from videodit_kernels.attention.tpu.tuned import lookup_blocks
from videodit_kernels.simulator import CHIPS

SEQ = 16384
COLUMNS = (("v5e", 128), ("v5e", 64), ("v5p", 128), ("v6e", 128), ("v6e", 64), ("tpu7x", 128))
ROWS = {
    "forward, bounded logits": {"which": "fwd"},
    "forward, any logits": {"which": "fwd", "bounded": False},
    "backward": {"which": "bwd"},
}
# At a head dim of 64 the simulator of a backward pass takes more memory with every block, until it runs out.
FEWER_KEYS = {("bwd", 64): 4096}

# 16 latent frames of 64 x 64 tokens; for the frames, 480p: 30 x 52.
MASKED_SEQ = 65536
MASKS = (
    "FrameCausal(1560)",
    "FrameCausal(1560, window=8, sinks=1)",
    "SlidingTiles((16, 64, 64), (8, 16, 16), (1, 3, 3))",
    "LocalWindow((16, 64, 64), (8, 16, 16), (9, 33, 33))",
)


def share(chip: str, dim: int, which: str, **more) -> str:
    """Return the simulated percentage of the chip's bfloat16 peak."""
    shape = {"which": which, "dim": dim, "seq": SEQ, "heads": CHIPS[chip].cores}
    keys = FEWER_KEYS.get((which, dim))
    blocks = list(lookup_blocks(chip, dim, SEQ))
    report = simulated.simulate_kernel("build_ours", chip, 1500.0, **shape, kv_seq=keys, blocks=blocks, **more)
    return f"{100 * report.share:.1f}"


def cost(chip: str, mask: str, which: str) -> str:
    """Format the percentage of blocks kept, that of partial ones, their relative cost, and the time in percent."""
    shape = {"seq": MASKED_SEQ, "dim": 128, "heads": CHIPS[chip].cores}
    result = simulated.simulate_mask_cost(chip, which, **shape, mask=mask, blocks=lookup_blocks(chip, 128, MASKED_SEQ))
    cut = f"{100 * result.partial:.1f} at {result.partial_cycles / result.whole_cycles:.2f}" if result.partial else "0"
    return f"{100 * result.kept:.1f}, {cut}: {100 * result.time:.1f}"


def table(columns: list[str], rows: dict[str, list[Callable[[], str]]]) -> None:
    """Print a Markdown table, each cell as soon as it is computed."""
    print("| |", " | ".join(columns), "|\n" + "|---" * (len(columns) + 1) + "|")
    for name, cells in rows.items():
        print(f"| {name} |", end="", flush=True)
        for cell in cells:
            try:
                print(f" {cell()} |", end="", flush=True)
            except RuntimeError as error:
                print(f" {error} |", end="", flush=True)
        print()


def main() -> None:
    """Print the requested table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="full", choices=["full", "masks"])
    parser.add_argument("--chip", default=",".join(CHIPS), help="comma-separated (default: all)")
    args = parser.parse_args()
    chips = args.chip.split(",")
    if args.table == "full":
        columns = [column for column in COLUMNS if column[0] in chips]
        rows = {
            name: [lambda c=c, d=d, more=more: share(c, d, **more) for c, d in columns] for name, more in ROWS.items()
        }
        table([f"{chip} {dim}" for chip, dim in columns], rows)
    else:
        passes = [(chip, which) for chip in chips for which in ("fwd", "bwd")]
        rows = {f"`{m}`": [lambda c=c, w=w, m=m: cost(c, m, w) for c, w in passes] for m in MASKS}
        table([f"{chip} {which}" for chip, which in passes], rows)


if __name__ == "__main__":
    main()
