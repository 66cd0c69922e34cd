"""Protection of existing files: commands overwrite only files of their own kind."""

from collections.abc import Callable
from pathlib import Path


def check_out(out: Path, what: str, ours: Callable[[bytes], bool]) -> None:
    """Raise ValueError if `out` exists and `ours` is False for its first bytes, or if it cannot be written."""
    from videodit_data.storage.whole_file import check_creatable

    check_creatable(out, is_file=True)
    if not out.exists():
        return
    head = b""
    if out.is_file():
        with out.open("rb") as file:
            head = file.read(2**26)  # shards may be larger than memory
    if not ours(head):
        raise ValueError(f"{out} exists and is not {what}; choose another place, nothing was written.")
