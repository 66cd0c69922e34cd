"""The numbers that a run has logged: `metrics.jsonl` in its directory, one object a line."""

import json
import logging
from pathlib import Path
from typing import Any

from videodit.checkpoint.atomic_write import write_text_atomically

METRICS_FILE = "metrics.jsonl"
_SHOWN = 60  # characters of a damaged line


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's `metrics.jsonl`, in order; none where there is no file.

    An end that was cut off while being written, or became zeros as after a power cut, is left out with a warning.

    Raises:
        ValueError: for any other line that is no entry, by its number.
    """
    path = workdir / METRICS_FILE
    lines, cut = _read_lines(path)
    if cut:
        logging.getLogger(__name__).warning("%s: its last line, cut off while being written, is left out", path)
    return [entry for _, entry in lines]


def drop_after(path: Path, step: int) -> None:
    """Remove the entries of later steps, and an end that `read_metrics` leaves out; errors as there."""
    lines = "".join(line + "\n" for line, entry in _read_lines(path)[0] if entry["step"] <= step)
    if path.exists() and path.read_bytes() != lines.encode():
        write_text_atomically(path, lines)


def _read_lines(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
    """Return each line with its entry, and whether there is more, which was cut off while being written."""
    if not path.exists():
        return [], False
    *whole, end = path.read_bytes().split(b"\n")
    if not end and whole and b"\0" in whole[-1]:
        end = whole.pop()
    end, zeros, _ = end.partition(b"\0")  # which file systems leave of what was not on the disk
    lines = []
    for number, line in enumerate([*whole, end] if end else whole, 1):
        try:
            text = line.decode()
            lines.append((text, _parse_entry(text)))
        except (ValueError, RecursionError) as error:
            if number > len(whole):
                return lines, True
            content = ascii(line[:_SHOWN].decode(errors="replace")) + "..." * (len(line) > _SHOWN)
            raise ValueError(
                f"{path}, line {number}, is damaged: it holds {content}, {_describe(error)}; right is an object such "
                'as {"step": 7, "loss": 0.5} of a step and numbers: restore the file, or remove the line'
            ) from error
    return lines, bool(zeros) and not end


def _parse_entry(text: str) -> dict[str, Any]:
    entry = json.loads(text, object_pairs_hook=_unique_keys)
    if not isinstance(entry, dict):
        raise ValueError("which is no object")
    step = entry.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ValueError("whose step is no whole number of 0 or more" if "step" in entry else "which has no step")
    for name, value in entry.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"whose {name!a} is no number")
    return entry


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError("which has a key twice")
    return entry


def _describe(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "which is no UTF-8"
    if isinstance(error, json.JSONDecodeError | RecursionError):
        return "which is no JSON"
    return str(error)
