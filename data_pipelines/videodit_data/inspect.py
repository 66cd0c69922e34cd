"""Inspection of a data set: its facts, as a table and as a contact sheet."""

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Column, Table

from videodit_data.boundary.terminal import SafeConsole, plain_text
from videodit_data.formats import open_dataset
from videodit_data.reading.transforms import cover_size
from videodit_data.storage import manifest
from videodit_data.storage.records import Record
from videodit_data.storage.whole_file import check_creatable, replace_whole
from videodit_data.video import decode, resample_pictures

_FRAME, _MARGIN, _LINE, _LINES = 160, 8, 14, 3  # pixels: height of a frame, space around a cell, a line of text
_LISTED = 100  # files left out that are printed
_LONG = 240  # characters of further info
_SHEETS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP"}
_SHEETS |= {".tif": "TIFF", ".tiff": "TIFF", ".pdf": "PDF"}  # formats by suffix


def summary(directory: str | os.PathLike[str], *, look_at: int = 1000) -> dict[str, Any]:
    """Return counts, sizes, rates, sources and dropped clips; captions of the first `look_at` records.

    ValueError when `directory` is no data set.
    """
    data = open_dataset(directory)
    described, records = data.manifest, data.records
    looked_at = min(look_at, len(records))
    captions, written_by = 0, Counter()
    for record in (records[number] for number in range(looked_at)):
        captions += len(record.captions)
        written_by.update(source or "unknown" for source in record.caption_sources)
    sizes = Counter(
        f"{width} x {height}"
        for shard in described.shards
        for height, width in zip(shard.heights, shard.widths, strict=True)
    )
    rates = Counter(f"{rate:g}" for shard in described.shards for rate in shard.fps)
    frames = [count for shard in described.shards for count in shard.frames]
    return {
        "directory": str(directory),
        "content": described.content,
        "clips": described.clips,
        "frames": described.frames,
        "shortest": min(frames),
        "longest": max(frames),
        "seconds": described.seconds,
        "bytes": described.bytes,
        "shards": len(described.shards),
        "looked_at": looked_at,
        "sizes": dict(sizes.most_common()),
        "captions": captions,
        "captions_by": dict(written_by.most_common()),
        "fps": dict(rates.most_common()),
        "origins": [(origin.source, origin.licence, origin.clips) for origin in described.origins],
        "left_out": [(item.file, item.reason, item.count) for item in described.left_out],
        "embedded": sum(shard.captions for shard in described.texts),
        "info": dict(described.info),
    }


def print_summary(directory: str | os.PathLike[str], console: Console | None = None, *, look_at: int = 1000) -> None:
    """Print `summary` as tables."""
    console, facts = console or SafeConsole(), summary(directory, look_at=look_at)
    table = Table("", Column(plain_text(facts["directory"]), overflow="fold"), title="Data set", title_justify="left")
    table.add_row("clips", f"{facts['clips']} ({facts['content']}) in {facts['shards']} shards")
    table.add_row("frames", f"{facts['frames']}; {facts['shortest']} to {facts['longest']} a clip")
    table.add_row("length", f"{facts['seconds']:.1f} s")
    table.add_row("size", f"{facts['bytes'] / 2**20:.1f} MiB")
    table.add_row("frames a second", _counts(facts["fps"]))
    table.add_row("width x height", _counts(facts["sizes"]))
    table.add_row("captions", f"{facts['captions']} for the first {facts['looked_at']} clips")
    if facts["captions_by"]:
        table.add_row("captions by", plain_text(_counts(facts["captions_by"])))
    if facts["embedded"]:
        table.add_row("embeddings", f"{facts['embedded']} captions, the empty one among them")
    for source, licence, clips in facts["origins"]:
        table.add_row("source", plain_text(f"{source} ({licence}): {clips}"))
    for key, value in facts["info"].items():
        text = str(value)
        short = text if len(text) <= _LONG else f"{text[:_LONG]}... all in {manifest.FILE}"
        table.add_row(plain_text(key), plain_text(short))
    console.print(table)
    if facts["left_out"]:
        number = sum(count for *_, count in facts["left_out"])
        left_out = Table("file", "reason", title=f"Left out: {number}", title_justify="left")
        for file, reason, count in facts["left_out"][:_LISTED]:
            left_out.add_row(plain_text(file + f" and {count - 1} more" * (count > 1)), plain_text(reason))
        console.print(left_out)
        if len(facts["left_out"]) > _LISTED:
            console.print(f"and {len(facts['left_out']) - _LISTED} more, all named in {manifest.FILE}")


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in values.items())


def check_sheet(path: Path) -> None:
    """Check that a contact sheet can be written there. ValueError if not."""
    if path.suffix.lower() not in _SHEETS:
        raise ValueError(f"{path} is no picture: the name of a contact sheet ends in {', '.join(_SHEETS)}.")
    check_creatable(path, is_file=True)


def contact_sheet(
    directory: str | os.PathLike[str], path: str | os.PathLike[str], *, rows: int = 4, columns: int = 2
) -> None:
    """Write a picture of clips from all over the data set: first, middle and last frame, the caption below.

    ValueError when `directory` is no data set, or holds latents, which show nothing, and as `check_sheet`.
    """
    path = Path(path)
    check_sheet(path)
    data = open_dataset(directory)
    records = data.records
    if data.manifest.content != "video":
        raise ValueError(f"{directory} holds latents; a contact sheet needs videos.")
    count = min(rows * columns, len(records))
    cells = [_cell(records[index * (len(records) - 1) // max(1, count - 1)]) for index in range(count)]
    with replace_whole(path) as scratch:
        _grid(cells, min(columns, count)).save(scratch, _SHEETS[path.suffix.lower()])


def _cell(record: Record) -> Image.Image:
    height, width = cover_size(record.height, record.width, _FRAME, 1)
    moments = sorted({0, record.frames // 2, record.frames - 1})
    frames = [_frame(record, moment, (height, width)) for moment in moments]
    cell = Image.new("RGB", (3 * width + 2, height + _LINES * _LINE), "white")
    for column, frame in enumerate(frames):
        cell.paste(Image.fromarray(frame), (column * (width + 1), 0))
    lines = textwrap.wrap(record.captions[0], width=max(1, 3 * width // 7), max_lines=_LINES, placeholder=" ...")
    ImageDraw.Draw(cell).text((0, height), "\n".join(lines), "black", ImageFont.load_default(12), spacing=1)
    return cell


def _frame(record: Record, number: int, size: tuple[int, int]) -> UInt8[np.ndarray, "y x 3"]:
    if record.pictures is None:
        return decode(record.video, number, 1, size=size, name=record.id)[0]
    return resample_pictures([record.pictures[number]], 1.0, fps=1.0, frames=1, size=size, name=record.id)[0]


def _grid(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Draw cells in rows; a row is as high as its highest cell, a column as wide as its widest."""
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    widths = [max(row[column].width for row in rows if column < len(row)) for column in range(columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    size = sum(widths) + _MARGIN * (columns + 1), sum(heights) + _MARGIN * (len(rows) + 1)
    sheet, top = Image.new("RGB", size, "white"), _MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = _MARGIN
        for cell, width in zip(row, widths, strict=False):
            sheet.paste(cell, (left, top))
            left += width + _MARGIN
        top += height + _MARGIN
    return sheet
