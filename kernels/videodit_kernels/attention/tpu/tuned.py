"""Block sizes by chip and their simulated speed, from the committed table that `schedule --tune` writes."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Literal

from videodit_kernels import target
from videodit_kernels.attention.tpu.common import Blocks

FILE = resources.files(__package__) / "tuned.json"

# Chips whose matrix unit is deeper than 128.
DEPTHS = {"v6e": 256, "tpu7x": 256}

# Chips that are not in the table but have the matrix units of one that is.
ALIKE = {"v4": "v5p"}

# Chips of the table by JAX's name of the device.
KINDS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "TPU7x": "tpu7x"}


@functools.cache
def load_table() -> tuple[dict, ...]:
    """Load rows with chip, head_dim, seq, the fields of `Blocks`, and both passes' simulated shares of peak."""
    return tuple(json.loads(FILE.read_text()))


def lookup_blocks(chip: str | None, head_dim: int, seq: int) -> Blocks:
    """Return the sizes for the head dim, or the next larger, and the nearest length, or the default."""
    rows = [row for row in load_table() if row["chip"] == chip and row["head_dim"] >= head_dim]
    if not rows:
        return Blocks()
    row = min(rows, key=lambda row: (row["head_dim"], row["seq"] > seq, abs(row["seq"] - seq)))
    return Blocks(**{field: row[field] for field in Blocks._fields})


def peak_share(chip: str, which: Literal["forward", "backward"], head_dim: int, seq: int) -> float:
    """Return the share of a chip's bfloat16 peak that a pass reaches in the simulator, full mask, bounded logits.

    1 / share is taken to be linear in 1 / `seq` through the two lengths simulated, as if every block had one cost and
    every row of blocks another; longer sequences reach the share of the longer of the two.

    Raises:
        ValueError: for a chip that was not simulated.
    """
    rows = [row for row in load_table() if row["chip"] == ALIKE.get(chip, chip)]
    if not rows:
        known = ", ".join(sorted({row["chip"] for row in load_table()} | set(ALIKE)))
        raise ValueError(f"attention was not simulated on {chip}: it was on {known}")
    dims = sorted({row["head_dim"] for row in rows})
    dim = next((dim for dim in dims if dim >= head_dim), dims[-1])
    points = sorted((1 / row["seq"], 1 / row[which]) for row in rows if row["head_dim"] == dim)
    (x, y), (x2, y2) = points[0], points[-1]
    slope = (y2 - y) / (x2 - x) if x2 > x else 0.0
    # A smaller head dim than one simulated leaves the rest of the matrix unit's depth idle.
    return min(1.0, head_dim / dim) / (y + slope * max(1 / seq - x, 0.0))


def spare_depth(chip: str | None, head_dim: int) -> int:
    """Return how much of the matrix unit's depth a product over the head dim leaves unused."""
    # Tokens are stored in sublanes of 16.
    return -head_dim % DEPTHS.get(chip, 128) if head_dim % 16 == 0 else 0


def current_chip() -> str | None:
    """Return the chip that is traced for."""
    return KINDS.get(target.get_device_kind())
