"""Block sizes for a chip, head dim and length: the committed table that `schedule --tune` writes."""

from __future__ import annotations

import functools
import json
from importlib import resources

from videodit_kernels import target
from videodit_kernels.attention.tpu.common import Blocks

FILE = resources.files(__package__) / "tuned.json"

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


def here(head_dim: int, seq: int) -> Blocks:
    """`tuned` for the device that is traced for."""
    return tuned(KINDS.get(target.kind()), head_dim, seq)
