"""What is chosen by chip: block sizes, from the committed table that `schedule --tune` writes, and a depth to fill."""

from __future__ import annotations

import functools
import json
from importlib import resources

from videodit_kernels import target
from videodit_kernels.attention.tpu.common import Blocks

FILE = resources.files(__package__) / "tuned.json"

# Chips whose matrix unit is deeper than 128.
DEPTHS = {"v6e": 256, "tpu7x": 256}

# Chips of the table by what JAX calls their devices.
KINDS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "TPU7x": "tpu7x"}


@functools.cache
def table() -> tuple[dict, ...]:
    """Rows with chip, head_dim, seq and the fields of `Blocks`."""
    return tuple(json.loads(FILE.read_text()))


def tuned(chip: str | None, head_dim: int, seq: int) -> Blocks:
    """Sizes found for the head dim, or the next larger, and the length, or the next shorter; the default where none."""
    rows = [row for row in table() if row["chip"] == chip and row["head_dim"] >= head_dim]
    if not rows:
        return Blocks()
    row = min(rows, key=lambda row: (row["head_dim"], row["seq"] > seq, abs(row["seq"] - seq)))
    return Blocks(**{field: row[field] for field in Blocks._fields})


def spare(chip: str | None, head_dim: int) -> int:
    """What a product over the head dim leaves unused of the matrix unit's depth."""
    # Tokens are stored in sublanes of 16.
    return -head_dim % DEPTHS.get(chip, 128) if head_dim % 16 == 0 else 0


def here() -> str | None:
    """The chip that is traced for."""
    return KINDS.get(target.kind())
