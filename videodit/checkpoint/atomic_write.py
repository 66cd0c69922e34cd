"""Text files written whole or not at all."""

import os
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file that replaces what is at `path` once it is complete."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
