"""What commands write over: only what they would have written."""

from collections.abc import Callable
from pathlib import Path


def check_out(out: Path, what: str, ours: Callable[[bytes], bool]) -> None:
    """ValueError when something else than `ours` is at `out` already."""
    if not out.exists():
        return
    head = b""
    if out.is_file():
        with out.open("rb") as file:
            head = file.read(2**26)  # shards may be larger than memory
    if not ours(head):
        raise ValueError(f"{out} exists and is not {what}; choose another place, nothing was written.")
